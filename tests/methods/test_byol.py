"""BYOL against a literal loop and across ranks; what is refused, and what the predictor is for."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests_support.ranks import run_ranks
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.distributed import comm
from unlabeled.distributed.batch_norm import convert_sync_batch_norm
from unlabeled.distributed.group import data_parallel
from unlabeled.errors import ConfigError
from unlabeled.losses.byol import BYOLLoss
from unlabeled.methods.base import DataFacts, Progress
from unlabeled.methods.byol import BYOL
from unlabeled.models.heads.projection import ProjectionHead
from unlabeled.registry import Component

IMAGES, DIM, LR, STEPS, MOMENTUM = 8, 6, 0.3, 5, 0.6


def mlp(output_dim: int, batch_norm: str) -> ProjectionHead.Config:
    return ProjectionHead.Config(
        hidden_dim=7, output_dim=output_dim, batch_norm=batch_norm, unit_norm=False
    )


def build(views: int = 2, *, batch_norm: str = "hidden", predicted: int = 4, **config: Any) -> BYOL:
    torch.manual_seed(0)
    return BYOL(
        BYOL.Config(
            momentum=MOMENTUM,
            predictor=Component("head", "projection", mlp(predicted, batch_norm)),
            **config,
        ),
        backbone=nn.Linear(DIM, DIM),
        head=ProjectionHead(mlp(4, batch_norm), feature_dim=DIM, num_classes=0),
        loss=BYOLLoss(BYOLLoss.Config()),
        facts=DataFacts(
            num_samples=100,
            num_classes=0,
            views=(ViewSpec(DIM, "global"),) * views,
            batch_size=IMAGES,
            micro_batch_size=IMAGES // comm.world_size(),
            steps_per_epoch=1,
            seed=0,
        ),
    )


def images(step: int, views: int = 2) -> Tensor:
    return torch.randn(views, IMAGES, DIM, generator=torch.Generator().manual_seed(step))


def train(method: BYOL, views: int = 2) -> tuple[list[float], list[Tensor]]:
    """Mean losses over ranks, and the gradients of the last step."""
    parallel = data_parallel(method, torch.device("cpu"))
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=LR)
    losses = []
    for step in range(STEPS):
        rows = images(step, views).chunk(comm.world_size(), dim=1)[comm.rank()]
        batch = Batch(list(rows), torch.arange(rows.shape[1]), None)
        optimizer.zero_grad()
        loss = parallel(batch, 0).loss
        loss.backward()
        optimizer.step()
        method.after_update(Progress(step, 1, STEPS))
        losses.append(float(comm.all_reduce_sum(loss.detach().clone())) / comm.world_size())
    return losses, [p.grad.clone() for p in parameters if p.grad is not None]


def test_training_is_the_papers_loop() -> None:
    """With equation 2 and algorithm 1; views one by one, as no layer mixes rows here."""
    method = build(batch_norm="none")
    online = copy.deepcopy(nn.Sequential(method.backbone, method.head.mlp))
    predictor, target = copy.deepcopy(method.predictor.mlp), copy.deepcopy(online)
    optimizer = torch.optim.SGD([*online.parameters(), *predictor.parameters()], lr=LR)
    expected = []
    for step in range(STEPS):
        first, second = images(step)
        loss = torch.zeros(())
        for seen, other in ((first, second), (second, first)):
            q, z = predictor(online(seen)), target(other).detach()
            cosine = (q * z).sum(dim=1) / (q.norm(dim=1) * z.norm(dim=1))
            loss = loss + (2 - 2 * cosine).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tau = 1 - (1 - MOMENTUM) * (math.cos(math.pi * step / STEPS) + 1) / 2
        with torch.no_grad():
            for theirs, ours in zip(target.parameters(), online.parameters(), strict=True):
                theirs.copy_(tau * theirs + (1 - tau) * ours)
        expected.append(loss.item())
    found, _ = train(method)
    assert found == pytest.approx(expected, rel=1e-5)
    pairs = (
        (method.teacher, target),
        (nn.ModuleList([method.backbone, method.head]), online),
        (method.predictor, predictor),
    )
    for ours, theirs in pairs:
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def _trained() -> tuple[list[float], list[Tensor], list[Tensor]]:
    method = build(3)
    convert_sync_batch_norm(method, group_size=None, device_type="cpu")
    losses, gradients = train(method, 3)
    return losses, gradients, [p.clone() for p in method.teacher.parameters()]


@pytest.mark.slow
def test_two_ranks_equal_one_in_loss_gradient_and_teacher() -> None:
    loss, *tensors = _trained()
    for other, *others in run_ranks(_trained, 2):
        assert other == pytest.approx(loss, rel=1e-4)
        for mine, theirs in zip(tensors, others, strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-3, atol=1e-5)


def test_local_crops_predict_and_are_no_targets() -> None:
    method = build(4, batch_norm="none")
    rows = images(0, 4)
    output = method(Batch(list(rows), torch.arange(IMAGES), None), 0)
    terms = []
    for target in (0, 1):
        t = method.teacher([rows[target]]).embeddings
        for view in {0, 1, 2, 3} - {target}:
            p = method.predictor(method.head(method.backbone(rows[view])).embeddings).embeddings
            terms.append((2 - 2 * torch.cosine_similarity(p, t)).mean() / 3)
    torch.testing.assert_close(output.loss, torch.stack(terms).sum())


def test_teacher_and_targets_take_no_gradient() -> None:
    method = build()
    _, gradients = train(method)
    trained = [n for n, p in method.named_parameters() if p.requires_grad]
    assert len(gradients) == len(trained)
    assert {name.split(".")[0] for name in trained} == {"backbone", "head", "predictor"}
    assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"views": 1}, "emits 1 view"),
        ({"crops_for_targets": (0, 2)}, r"method.crops_for_targets: \[0, 2\]"),
        ({"predicted": 5}, "5 numbers cannot be compared with the head's 4"),
    ],
)
def test_impossible_choices_are_named(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**choices)
