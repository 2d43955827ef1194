"""RotNet against a loop over images and turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.distributed import comm
from unlabeled.distributed.group import data_parallel
from unlabeled.errors import ConfigError
from unlabeled.losses.cross_entropy import CrossEntropyLoss
from unlabeled.methods.base import DataFacts, Progress
from unlabeled.methods.rotnet import RotNet
from unlabeled.models.heads.classifier import ClassifierHead
from unlabeled.models.heads.linear import LinearHead

SIDE = 4


def rotnet(batch: int = 6, emitted: int = 2, outputs: int = 4, **fields: Any) -> RotNet:
    torch.manual_seed(0)
    config = ClassifierHead.Config(outputs=outputs)
    return RotNet(
        RotNet.Config(**{"views": emitted, **fields}),
        backbone=nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 5), nn.Tanh()),
        head=ClassifierHead(config, feature_dim=5, num_classes=0),
        loss=CrossEntropyLoss(CrossEntropyLoss.Config()),
        facts=DataFacts(
            num_samples=20,
            num_classes=0,
            views=(ViewSpec(SIDE, "global"),) * emitted,
            batch_size=batch,
            micro_batch_size=batch // comm.world_size(),
            steps_per_epoch=2,
            seed=3,
        ),
    )


def images(views: int = 2) -> list[Tensor]:
    return list(torch.randn(views, 6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))


def turned_by_hand(image: Tensor, turns: int) -> Tensor:
    return torch.from_numpy(np.rot90(image.numpy(), turns, axes=(1, 2)).copy())


def cross_entropy(method: RotNet, image: Tensor, turns: int) -> Tensor:
    logits = method.head(method.backbone(turned_by_hand(image, turns)[None])).scores[0][0]
    return logits.logsumexp(0) - logits[turns]


def test_loss_is_the_mean_over_views_images_and_turns() -> None:
    method, views = rotnet(), images()
    output = method(Batch(views, torch.arange(6), None), 0)
    terms = [cross_entropy(method, image, t) for v in views for image in v for t in range(4)]
    torch.testing.assert_close(output.loss, torch.stack(terms).mean())
    assert output.embeddings is not None and len(output.embeddings) == 2 * 4 * 6
    recognised = [
        int(method.head(method.backbone(turned_by_hand(image, t)[None])).scores[0].argmax()) == t
        for view in views
        for image in view
        for t in range(4)
    ]
    assert float(output.scalars["rotation_accuracy"]) == pytest.approx(np.mean(recognised))


def test_views_of_several_sizes_are_turned_each_for_itself() -> None:
    method = rotnet()
    method.backbone = nn.Sequential(nn.AdaptiveAvgPool2d(SIDE), *method.backbone)
    views = [*images(1), torch.randn(6, 3, 2 * SIDE, 2 * SIDE)]
    loss = method(Batch(views, torch.arange(6), None), 0).loss
    terms = [cross_entropy(method, image, t) for v in views for image in v for t in range(4)]
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def found_turns(method: RotNet, views: list[Tensor], indices: Tensor) -> list[list[int]]:
    """By view and image, the turn that the method has given it."""
    turned, turns = method._turned(views, indices)
    rows = turns.reshape(len(views), -1).tolist()
    for view, result, row in zip(views, turned, rows, strict=True):
        for n, turn in enumerate(row):
            assert torch.equal(result[n], turned_by_hand(view[n], turn))
    return rows


def test_single_turns_depend_on_seed_step_and_image_alone() -> None:
    method, views = rotnet(turns_per_image=1), images()
    indices = torch.tensor([4, 9, 0, 11, 7, 2])
    method.before_step(Progress(5, 2, 9), [])
    rows = found_turns(method, views, indices)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    shuffled = found_turns(method, [view[order] for view in views], indices[order])
    assert shuffled == [[row[n] for n in order.tolist()] for row in rows]
    output = method(Batch(views, indices, None), 0)
    terms = [cross_entropy(method, views[v][n], rows[v][n]) for v in range(2) for n in range(6)]
    torch.testing.assert_close(output.loss, torch.stack(terms).mean())
    counts = np.zeros(4, dtype=int)
    for step in range(100):
        method.before_step(Progress(step, 2, 200), [])
        counts += np.bincount(np.ravel(found_turns(method, views, indices)), minlength=4)
    # 300 of each are expected: chi-square with 3 degrees of freedom is above 22 once in 10,000.
    assert sum((count - 300) ** 2 / 300 for count in counts) < 22


def step_on_ranks() -> tuple[float, list[Tensor]]:
    method = rotnet(turns_per_image=4)
    rank, share = comm.rank(), 6 // comm.world_size()
    rows = slice(rank * share, (rank + 1) * share)
    parallel = data_parallel(method, torch.device("cpu"))
    output = parallel(Batch([view[rows] for view in images()], torch.arange(6)[rows], None), 0)
    output.loss.backward()
    loss = comm.all_reduce_sum(output.loss.detach().clone()) / comm.world_size()
    return float(loss), [p.grad for p in method.parameters() if p.grad is not None]


@pytest.mark.slow
def test_two_ranks_have_the_loss_and_gradient_of_one() -> None:
    loss, gradients = step_on_ranks()
    assert len(gradients) == 4
    for found, others in run_ranks(step_on_ranks, 2):
        assert found == pytest.approx(loss, rel=1e-6)
        for one, other in zip(gradients, others, strict=True):
            torch.testing.assert_close(other, one, atol=1e-7, rtol=1e-5)


def test_views_that_are_not_turned_are_not_looked_at() -> None:
    first, second = images()
    method = rotnet(views=1)
    indices = torch.arange(6)
    alone = method(Batch([first], indices, None), 0).loss
    assert torch.equal(method(Batch([first, second * torch.nan], indices, None), 0).loss, alone)
    with pytest.raises(ConfigError, match="3 views are to be turned, and the transform emits 2"):
        rotnet(views=3)
    with pytest.raises(ConfigError, match="views: must be 1 or more"):
        build_config(RotNet.Config, {"views": 0})


def test_other_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"head=classifier and head\.outputs=4"):
        rotnet(outputs=5)
    method = rotnet()
    head = LinearHead(LinearHead.Config(), feature_dim=5, num_classes=4)
    with pytest.raises(ConfigError, match="head=classifier"):
        RotNet(
            RotNet.Config(),
            backbone=method.backbone,
            head=head,  # type: ignore[arg-type]
            loss=method.loss,
            facts=method.facts,
        )
