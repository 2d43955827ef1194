"""DINO's head against the official one, and what its last layer promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unlabeled.models.heads.dino import DINOHead
from unlabeled.models.heads.weight_norm import WeightNormLinear

DATA = Path(__file__).resolve().parents[2] / "data"


def make(**fields: Any) -> DINOHead:
    config = {"hidden_dim": 12, "output_dim": 6, "num_outputs": 9, **fields}
    return DINOHead(DINOHead.Config(**config), feature_dim=10, num_classes=0)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(DATA / "dino_vit.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file if name.startswith("head_")}


def official(golden: dict[str, np.ndarray], variant: str, kind: str) -> dict[str, Tensor]:
    """Parameters or gradients of an official head under our names."""
    prefix = f"head_{variant}_{kind}:"
    return {
        # A head of one layer is a bare Linear there, and a sequence of one here.
        name.removeprefix(prefix)
        .replace("mlp.weight", "mlp.0.weight")
        .replace("mlp.bias", "mlp.0.bias"): torch.from_numpy(array)
        for name, array in golden.items()
        if name.startswith(prefix)
    }


@pytest.mark.parametrize(
    ("variant", "layers", "batch_norm", "norm_last_layer"),
    [
        ("default", 3, False, True),
        ("bn", 3, True, True),
        ("nl1", 1, False, True),
        ("nl2", 2, False, True),
        ("trainable_g", 3, False, False),
    ],
)
def test_output_and_gradients_are_the_official_ones(
    golden: dict[str, np.ndarray],
    variant: str,
    layers: int,
    batch_norm: bool,
    norm_last_layer: bool,
) -> None:
    features = torch.from_numpy(golden[f"head_{variant}_in"]).requires_grad_()
    config = DINOHead.Config(
        hidden_dim=24,
        num_hidden_layers=layers - 1,
        output_dim=12,
        batch_norm=batch_norm,
        num_outputs=20,
        norm_last_layer=norm_last_layer,
    )
    head = DINOHead(config, feature_dim=features.shape[1], num_classes=0)
    missing, unexpected = head.load_state_dict(official(golden, variant, "param"), strict=False)
    assert not unexpected and all("running" in name or "tracked" in name for name in missing)
    (scores,) = head(features).scores
    (scores * torch.from_numpy(golden["head_grad_weighting"])).sum().backward()
    close = {"atol": 2e-5, "rtol": 1e-5}
    torch.testing.assert_close(scores, torch.from_numpy(golden[f"head_{variant}_out"]), **close)
    expected = torch.from_numpy(golden[f"head_{variant}_grad_in"])
    torch.testing.assert_close(features.grad, expected, **close)
    found = {n: p.grad for n, p in head.named_parameters() if p.requires_grad}
    expected_gradients = official(golden, variant, "grad")
    assert found.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found[name], gradient, msg=name, **close)
    learned = bool(golden[f"head_{variant}_norm_g_requires_grad"])
    assert head.last_layer.weight_g.requires_grad == learned == (not norm_last_layer)


def test_with_fixed_lengths_the_scores_are_cosines() -> None:
    head = make()
    with torch.no_grad():
        head.last_layer.weight_v.mul_(torch.rand(9, 1) * 5)  # lengths of v are none of its business
    output = head(torch.randn(7, 10))
    rows = head.last_layer.weight_v
    cosines = nn.functional.cosine_similarity(output.embeddings[:, None], rows[None], dim=2)
    torch.testing.assert_close(output.scores[0], cosines)
    torch.testing.assert_close(output.embeddings.norm(dim=1), torch.ones(7))


def test_lengths_scale_the_scores() -> None:
    layer, rows = WeightNormLinear(4, 3, learn_lengths=True), torch.randn(5, 4)
    before = layer(rows)
    with torch.no_grad():
        layer.weight_g.copy_(torch.tensor([[2.0], [1.0], [0.0]]))
    torch.testing.assert_close(layer(rows), before * torch.tensor([2.0, 1.0, 0.0]))


def test_the_mlp_begins_with_narrow_weights_and_no_bias() -> None:
    head = make(hidden_dim=200)
    weights = torch.cat([p.detach().flatten() for p in (head.mlp[2].weight, head.mlp[4].weight)])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.05)
    assert all(float(head.mlp[n].bias.detach().abs().max()) == 0 for n in (0, 2, 4))
    bound = 6**-0.5
    assert 0.8 * bound < float(head.last_layer.weight_v.detach().abs().max()) <= bound


def test_a_predictor_works_on_the_bottleneck() -> None:
    head, features = make(), torch.randn(7, 10)
    predictor = nn.Linear(6, 6)
    found = head(features, predictor)
    z = nn.functional.normalize(predictor(head.mlp(features)), dim=1)
    torch.testing.assert_close(found.embeddings, z)
    torch.testing.assert_close(found.scores[0], head.last_layer(z))


def test_scores_are_float32_under_autocast() -> None:
    head, features = make(), torch.randn(7, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(features)
    assert output.scores[0].dtype == output.embeddings.dtype == torch.float32
    torch.testing.assert_close(output.scores[0], head.last_layer(output.embeddings))


def test_faults_name_the_field() -> None:
    faults = dict(DINOHead.Config(hidden_dim=0, num_outputs=1).problems())
    assert set(faults) == {"hidden_dim", "num_outputs"}
    assert not list(DINOHead.Config().problems())
