"""SwAV's head against the official code's outputs and its own contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.models.heads.prototypes import PrototypesHead

GOLDEN = Path(__file__).parents[2] / "data" / "swav_resnet.npz"


def make(**fields: Any) -> PrototypesHead:
    config = {"hidden_dim": 12, "output_dim": 6, "num_prototypes": [5, 9], **fields}
    return PrototypesHead(PrototypesHead.Config(**config), feature_dim=10, num_classes=0)


def filled(key: str, shape: torch.Size, seed: int) -> Tensor:
    """One entry of the golden file's recipe, which fixes weights without storing them."""
    random = np.random.RandomState(seed)
    if key.endswith("num_batches_tracked"):
        values = np.zeros(shape)
    elif key.endswith("running_var"):
        values = 0.5 + random.rand(*shape)
    elif len(shape) >= 2:
        values = random.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif key.endswith("weight"):
        values = 0.5 + random.rand(*shape)
    else:
        values = 0.1 * random.randn(*shape)
    return torch.from_numpy(values).float()


def our_key(official: str) -> str:
    renamed = official.replace("projection_head.weight", "mlp.0.weight")
    renamed = renamed.replace("projection_head.bias", "mlp.0.bias")
    renamed = renamed.replace("projection_head.", "mlp.")
    renamed = renamed.replace("prototypes.prototypes", "prototypes.")
    return renamed.replace("prototypes.weight", "prototypes.0.weight")


@pytest.mark.parametrize(
    ("variant", "fields"),
    [
        ("hidden0", {"num_hidden_layers": 0, "output_dim": 16, "num_prototypes": [7]}),
        ("multi", {"hidden_dim": 32, "output_dim": 16, "num_prototypes": [5, 9, 5]}),
    ],
)
def test_reproduces_the_official_head(variant: str, fields: dict[str, Any]) -> None:
    golden = np.load(GOLDEN, allow_pickle=False)
    head = PrototypesHead(PrototypesHead.Config(**fields), feature_dim=2048, num_classes=0).eval()
    shapes = {key: value.shape for key, value in head.state_dict().items()}
    seed = int(golden["set_seed"]) + 1000
    head.load_state_dict(
        {
            our_key(key): filled(key, shapes[our_key(key)], seed + i)
            for i, key in enumerate(golden[f"head_{variant}_keys"].tolist())
        }
    )
    output = head(torch.from_numpy(golden["head_feat_in"]))
    expected = torch.from_numpy(golden[f"head_{variant}_emb"])
    torch.testing.assert_close(output.embeddings, expected, rtol=1e-4, atol=1e-6)
    assert len(output.scores) == len(fields["num_prototypes"])
    for h, scores in enumerate(output.scores):
        expected = torch.from_numpy(golden[f"head_{variant}_out{h}"])
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)


def test_the_default_is_swavs_architecture() -> None:
    head = PrototypesHead(PrototypesHead.Config(), feature_dim=2048, num_classes=0)
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters()}
    assert shapes == {
        "mlp.0.weight": (2048, 2048),
        "mlp.0.bias": (2048,),
        "mlp.1.weight": (2048,),
        "mlp.1.bias": (2048,),
        "mlp.3.weight": (128, 2048),
        "mlp.3.bias": (128,),
        "prototypes.0.weight": (3000, 128),
    }
    assert head.output_dim == 128


def test_embeddings_are_unit_and_scores_are_cosines_once_prototypes_are_normalised() -> None:
    head, features = make(), torch.randn(7, 10)
    head.normalize_prototypes()
    output = head(features)
    z = head.mlp.train()(features)
    torch.testing.assert_close(output.embeddings.norm(dim=1), torch.ones(7))
    for scores, prototypes in zip(output.scores, head.prototypes, strict=True):
        expected = F.cosine_similarity(z[:, None], prototypes.weight[None], dim=2)
        torch.testing.assert_close(scores, expected)


def test_normalising_is_in_place_outside_autograd_and_survives_zero_rows() -> None:
    head = make()
    weight = head.prototypes[0].weight
    with torch.no_grad():
        weight[1] = 0
    before, address = weight.detach().clone(), weight.data_ptr()
    head.normalize_prototypes()
    assert head.prototypes[0].weight.data_ptr() == address
    assert weight.requires_grad and weight.grad_fn is None
    torch.testing.assert_close(weight.norm(dim=1), torch.tensor([1.0, 0, 1, 1, 1]))
    rows = [0, 2, 3, 4]
    torch.testing.assert_close(weight[rows], before[rows] / before[rows].norm(dim=1, keepdim=True))
    torch.testing.assert_close(head.prototypes[1].weight.norm(dim=1), torch.ones(9))


def test_gradients_reach_the_projection_and_every_prototype_set() -> None:
    head = make()
    output = head(torch.randn(7, 10))
    sum(s.square().sum() for s in output.scores).backward()
    assert all(p.grad is not None and p.grad.any() for p in head.prototypes.parameters())
    first = head.mlp[0]
    assert isinstance(first, nn.Linear) and first.weight.grad is not None


def test_the_prototype_product_is_float32_under_autocast() -> None:
    head, features = make().eval(), torch.randn(7, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(features)
    assert output.embeddings.dtype == torch.float32
    for scores, prototypes in zip(output.scores, head.prototypes, strict=True):
        assert scores.dtype == torch.float32
        assert torch.equal(scores, F.linear(output.embeddings, prototypes.weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_head_in_another_type_computes_in_float32_or_better(dtype: torch.dtype) -> None:
    head = make().to(dtype).eval()
    output = head(torch.randn(7, 10, dtype=dtype))
    head.normalize_prototypes()
    wide = torch.promote_types(dtype, torch.float32)
    assert {t.dtype for t in [output.embeddings, *output.scores]} == {wide}
    assert head.prototypes[0].weight.dtype == dtype


def test_without_batch_norm_rows_are_independent() -> None:
    head, features = make(batch_norm=False), torch.randn(7, 10)
    torch.testing.assert_close(head(features[:3]).embeddings, head(features).embeddings[:3])
    assert not list(head.buffers())
    assert list(make().buffers())


@pytest.mark.parametrize("counts", [[], [0], [5, -1]])
def test_impossible_prototype_sets_are_a_fault(counts: list[int]) -> None:
    faults = list(PrototypesHead.Config(num_prototypes=counts).problems())
    assert [field for field, _ in faults] == ["num_prototypes"]
    assert str(counts) in faults[0][1]
    assert not list(PrototypesHead.Config().problems())
    assert dict(PrototypesHead.Config(output_dim=0).problems()).keys() == {"output_dim"}
