"""What DINO promises, on a network small enough to write out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unlabeled.assigners.base import BatchAssigner
from unlabeled.assigners.centered_scores import CenteredScores
from unlabeled.assigners.centering import Centering
from unlabeled.assigners.sinkhorn import Sinkhorn
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.errors import ConfigError
from unlabeled.losses.normalized_mse import NormalizedMSE
from unlabeled.losses.swav import SwAVLoss
from unlabeled.methods.base import DataFacts, Progress
from unlabeled.methods.dino import DINO
from unlabeled.models.heads.dino import DINOHead
from unlabeled.models.heads.projection import ProjectionHead

GLOBAL, LOCAL = ViewSpec(32, "global"), ViewSpec(16, "local")


def build(
    *,
    assigner: BatchAssigner | None = None,
    loss: nn.Module | None = None,
    head: nn.Module | None = None,
    views: tuple[ViewSpec, ...] = (GLOBAL, GLOBAL, LOCAL),
    total_steps: int | None = None,
    **fields: Any,
) -> DINO:
    torch.manual_seed(0)
    config = DINOHead.Config(hidden_dim=12, output_dim=6, num_outputs=7, norm_last_layer=False)
    return DINO(
        DINO.Config(**fields),
        backbone=nn.Sequential(nn.Linear(5, 8), nn.Tanh()),
        head=head or DINOHead(config, feature_dim=8, num_classes=0),
        loss=loss or SwAVLoss(SwAVLoss.Config(temperature=0.1)),
        assigner=assigner or Centering(Centering.Config()),
        facts=DataFacts(
            num_samples=1000,
            num_classes=0,
            views=views,
            batch_size=4,
            micro_batch_size=4,
            steps_per_epoch=2,
            seed=0,
            total_steps=total_steps,
        ),
    )


def batch(seed: int = 1, views: int = 3) -> Batch:
    rows = torch.randn(views, 4, 5, generator=torch.Generator().manual_seed(seed))
    return Batch(list(rows), torch.arange(4), None)


def trained(method: DINO, steps: int) -> list[dict[str, Tensor]]:
    """The student's parameters before each step and after the last; two steps are an epoch."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    states = [student_of(method)]
    for step in range(steps):
        progress = Progress(step, 2, steps)
        if progress.epoch_step == 0:
            method.start_epoch(progress, lambda: [])
        method.before_step(progress, [batch(step)])
        optimizer.zero_grad()
        method(batch(step), 0).loss.backward()
        method.after_backward(progress)
        optimizer.step()
        method.after_update(progress)
        states.append(student_of(method))
    return states


def student_of(method: DINO) -> dict[str, Tensor]:
    parts = nn.ModuleDict({"backbone": method.backbone, "head": method.head})
    return {name: p.detach().clone() for name, p in parts.named_parameters()}


def teacher_of(method: DINO) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in method.teacher.named_parameters()}


def by_the_equation(method: DINO, views: list[Tensor]) -> Tensor:
    """The loss in float64, written out for every pair of views, image and output."""
    student = [method.head(method.backbone(v)).scores[0].double() / 0.1 for v in views]
    teacher = [method.teacher.head(method.teacher.backbone(v)).scores[0].double() for v in views]
    pairs = [(i, v) for i in (0, 1) for v in range(3) if v != i]
    total = torch.zeros((), dtype=torch.float64)
    assert isinstance(method.assigner, Centering)
    for i, v in pairs:
        for n in range(4):
            codes = ((teacher[i][n].detach() - method.assigner.center) / 0.04).exp()
            log_p = student[v][n] - student[v][n].exp().sum().log()
            total = total - (codes / codes.sum() * log_p).sum() / 4 / len(pairs)
    return total


def test_the_loss_is_the_equation_in_value_and_gradient() -> None:
    method, oracle = build(), build()
    for each in (method, oracle):
        with torch.no_grad():
            each.assigner.get_buffer("center").copy_(torch.linspace(-0.1, 0.1, 7))
    loss = method(batch(), 0).loss
    expected = by_the_equation(oracle, batch().views)
    loss.backward()
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for (name, ours), theirs in zip(method.named_parameters(), oracle.parameters(), strict=True):
        if ours.requires_grad:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6, msg=name)
    assert all(p.grad is None for p in method.teacher.parameters())


def test_a_head_that_says_nothing_costs_ln_k() -> None:
    method = build()
    with torch.no_grad():
        method.head.last_layer.weight_g.zero_()
    assert float(method(batch(), 0).loss.detach()) == pytest.approx(np.log(7), rel=1e-6)


def test_the_teacher_sees_the_global_views_alone() -> None:
    method = build(views=(LOCAL, GLOBAL, LOCAL, GLOBAL))
    assert method.target_views == [1, 3]
    seen: list[int] = []
    method.teacher.backbone.register_forward_hook(lambda module, inputs, out: seen.append(len(out)))
    views = batch(views=4).views
    output = method(Batch(views, torch.arange(4), None), 0)
    assert sum(seen) == 8
    assert output.codes is not None and output.codes.shape == (8, 7)
    expected = method.teacher.head(method.teacher.backbone(torch.cat([views[1], views[3]])))
    torch.testing.assert_close(output.codes, torch.softmax(expected.scores[0] / 0.04, dim=1))


def test_the_last_layer_is_frozen_for_its_epochs() -> None:
    method = build(freeze_last_layer_epochs=2)
    states = trained(method, 6)
    moved = [
        not torch.equal(a["head.last_layer.weight_v"], b["head.last_layer.weight_v"])
        for a, b in pairwise(states)
    ]
    assert moved == [False] * 4 + [True] * 2
    assert all(
        not torch.equal(a["head.mlp.0.weight"], b["head.mlp.0.weight"]) for a, b in pairwise(states)
    )
    assert method.derived_numbers()["last_layer_frozen"] == "4 steps"


def test_the_momentum_teacher_is_the_average_along_the_cosine() -> None:
    method = build(momentum=0.5, final_momentum=0.9, freeze_last_layer_epochs=0)
    states = trained(method, 5)
    momenta = 0.9 - 0.4 * (1 + np.cos(np.pi * np.arange(5) / 5)) / 2
    for name, teacher in teacher_of(method).items():
        expected = states[0][name].double()
        for momentum, state in zip(momenta, states[1:], strict=True):
            expected = momentum * expected + (1 - momentum) * state[name].double()
        torch.testing.assert_close(teacher.double(), expected, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("steps", "given", "expected"),
    [
        (None, None, 0.996),
        (125_000, None, 0.996),
        (2500, None, 0.996),
        (930, None, 1 - 10 / 930),
        (20, None, 0.5),
        (6, None, 0.0),
        (20, 0.9, 0.9),
    ],
)
def test_in_a_short_run_the_teacher_averages_over_a_tenth_of_it(
    steps: int | None, given: float | None, expected: float
) -> None:
    method = build(momentum=given, total_steps=steps)
    assert method.momentum == pytest.approx(expected, rel=1e-12)
    assert f"{expected:.4g}, to 1" in method.derived_numbers()["teacher_momentum"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    # Of the student before steps 0 to 5, the one that teaches in each step, and the one left.
    [
        ("student", [0, 1, 2, 3, 4, 5]),
        ("last_iteration", [0, 0, 1, 2, 3, 4]),
        ("last_epoch", [0, 0, 2, 2, 4, 4]),
    ],
)
def test_other_teachers_are_single_students_of_the_past(rule: str, expected: list[int]) -> None:
    found = []
    for steps in range(6):
        method = build(teacher=rule, freeze_last_layer_epochs=0)
        states = trained(method, steps)
        if steps % 2 == 0:
            method.start_epoch(Progress(steps, 2, 6), lambda: [])
        teacher = teacher_of(method)
        found.append(
            next(n for n, s in enumerate(states) if all(torch.equal(s[k], teacher[k]) for k in s))
        )
    assert found == expected


def test_a_predictor_is_the_student_s_alone() -> None:
    method, plain = build(predictor_hidden_dim=10), build()
    names = {n for n, p in method.named_parameters() if p.requires_grad}
    assert {n for n in names if n.startswith("predictor.")} == {
        f"predictor.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }
    assert set(teacher_of(method)) == set(teacher_of(plain))
    output, without = method(batch(), 0), plain(batch(), 0)
    assert torch.equal(output.codes, without.codes)
    assert not torch.allclose(output.embeddings, without.embeddings)
    output.loss.backward()
    assert all(p.grad is not None for n, p in method.named_parameters() if n in names)


def test_sinkhorn_may_make_the_codes() -> None:
    method = build(assigner=Sinkhorn(Sinkhorn.Config(epsilon=0.05)))
    output = method(batch(), 0)
    scores = method.teacher(batch().views[:2]).scores[0]
    torch.testing.assert_close(output.codes, Sinkhorn(Sinkhorn.Config(epsilon=0.05))(scores))


def test_one_sinkhorn_iteration_is_the_softmax_over_the_batch() -> None:
    """The thesis's listing of section 4.2.2: softmax along the batch, then rows that sum to 1."""
    scores = torch.randn(9, 5, dtype=torch.float64)
    expected = torch.softmax(scores / 0.05, dim=0)
    expected = expected / expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(Sinkhorn(Sinkhorn.Config(iterations=1))(scores), expected)


def test_mse_compares_centred_outputs_and_the_meters_see_no_codes() -> None:
    method = build(
        assigner=CenteredScores(CenteredScores.Config()),
        loss=NormalizedMSE(NormalizedMSE.Config()),
    )
    trained(method, 2)
    output, views = method(batch(), 0), batch().views
    assert output.codes is None
    center = method.assigner.get_buffer("center")
    assert float(center.abs().max()) > 0
    student = [method.head(method.backbone(v)).scores[0] for v in views]
    teacher = [s - center for s in method.teacher(views).scores[0].chunk(3)]
    terms = [
        2 - 2 * nn.functional.cosine_similarity(student[v], teacher[i]).mean()
        for i in (0, 1)
        for v in range(3)
        if v != i
    ]
    torch.testing.assert_close(output.loss, torch.stack(terms).mean())


def test_parts_that_do_not_fit_are_refused() -> None:
    mse = NormalizedMSE(NormalizedMSE.Config())
    with pytest.raises(ConfigError, match="use assigner=centered_scores"):
        build(loss=mse)
    with pytest.raises(ConfigError, match="CenteredScores makes no codes"):
        build(assigner=CenteredScores(CenteredScores.Config()))
    with pytest.raises(ConfigError, match="use head=dino"):
        build(head=ProjectionHead(ProjectionHead.Config(), feature_dim=8, num_classes=0))
    for views in ((GLOBAL,), (LOCAL, LOCAL)):
        with pytest.raises(ConfigError, match="2 or more with a global one"):
            build(views=views)


def test_faults_name_the_field() -> None:
    faults = dict(
        DINO.Config(momentum=1.5, freeze_last_layer_epochs=-1, predictor_hidden_dim=0).problems()
    )
    assert set(faults) == {"momentum", "freeze_last_layer_epochs", "predictor_hidden_dim"}
    assert not list(DINO.Config().problems())
