"""MoCo-v2 against a literal loop, across ranks, and what shuffled batch normalisation shuffles."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests_support.ranks import run_ranks
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.distributed import comm
from unlabeled.distributed.batch_norm import convert_sync_batch_norm
from unlabeled.distributed.group import data_parallel
from unlabeled.errors import ConfigError
from unlabeled.losses.moco import MoCoLoss
from unlabeled.methods.base import DataFacts, Progress
from unlabeled.methods.moco_v2 import MoCoV2
from unlabeled.models.heads.projection import ProjectionHead

IMAGES, DIM, LR, STEPS = 8, 6, 0.5, 5
QUEUE = 3 * IMAGES


def build(
    views: int = 2, *, batch_norm: bool = False, micro_steps: int = 1, samples: int = 100, **c: Any
) -> MoCoV2:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(DIM, DIM), *([nn.BatchNorm1d(DIM)] if batch_norm else []))
    config = ProjectionHead.Config(hidden_dim=5, output_dim=4)
    return MoCoV2(
        MoCoV2.Config(**{"momentum": 0.9, "queue_samples": QUEUE, **c}),
        backbone=backbone,
        head=ProjectionHead(config, feature_dim=DIM, num_classes=0),
        loss=MoCoLoss(MoCoLoss.Config(temperature=0.2)),
        facts=DataFacts(
            num_samples=samples,
            num_classes=0,
            views=(ViewSpec(DIM, "global"),) * views,
            batch_size=IMAGES,
            micro_batch_size=IMAGES // (comm.world_size() * micro_steps),
            steps_per_epoch=4,
            seed=3,
        ),
    )


def images(step: int, views: int = 2) -> Tensor:
    return torch.randn(views, IMAGES, DIM, generator=torch.Generator().manual_seed(step))


def batch_of(rows: Tensor) -> Batch:
    return Batch(list(rows), torch.arange(rows.shape[1]), None)


def train(method: MoCoV2, batches: Sequence[list[Batch]]) -> tuple[list[float], list[Tensor]]:
    """Mean losses over ranks and micro-batches, and the gradients of the last step."""
    parallel = data_parallel(method, torch.device("cpu"))
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=LR)
    losses = []
    for step, micro_batches in enumerate(batches):
        progress = Progress(step, 4, 8)
        with torch.no_grad():
            method.before_step(progress, micro_batches)
        optimizer.zero_grad()
        total = torch.zeros(())
        for micro_step, batch in enumerate(micro_batches):
            loss = parallel(batch, micro_step).loss / len(micro_batches)
            loss.backward()
            total += loss.detach()
        optimizer.step()
        with torch.no_grad():
            method.after_update(progress)
        losses.append(float(comm.all_reduce_sum(total)) / comm.world_size())
    return losses, [p.grad.clone() for p in parameters if p.grad is not None]


def share(rows: Tensor) -> Batch:
    """This rank's rows of views [V, B, DIM]."""
    return batch_of(rows.chunk(comm.world_size(), dim=1)[comm.rank()])


def test_training_is_the_official_loop() -> None:
    """Which moves the key encoder before its forward pass, not after the optimizer."""
    method = build()
    query = copy.deepcopy(nn.Sequential(method.backbone, method.head.mlp))
    key = copy.deepcopy(query)
    queue, pointer = method.queue.keys.T.clone(), 0
    optimizer = torch.optim.SGD(query.parameters(), lr=LR)
    expected = []
    for step in range(STEPS):
        with torch.no_grad():
            for theirs, ours in zip(key.parameters(), query.parameters(), strict=True):
                theirs.copy_(theirs * 0.9 + ours * (1 - 0.9))
        first, second = images(step)
        q = F.normalize(query(first), dim=1)
        k = F.normalize(key(second), dim=1).detach()
        positive = torch.einsum("nc,nc->n", q, k).unsqueeze(-1)
        negative = torch.einsum("nc,ck->nk", q, queue.clone())
        logits = torch.cat([positive, negative], dim=1) / 0.2
        loss = F.cross_entropy(logits, torch.zeros(IMAGES, dtype=torch.int64))
        queue[:, pointer : pointer + IMAGES] = k.T
        pointer = (pointer + IMAGES) % QUEUE
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    found, _ = train(method, [[batch_of(images(step))] for step in range(STEPS)])
    assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(method.queue.keys.T, queue, rtol=1e-5, atol=1e-6)
    ours = [*method.backbone.parameters(), *method.head.parameters()]
    for mine, theirs in zip(ours, query.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def _trained(sync: bool, groups: int | None) -> tuple[Any, ...]:
    method = build(3, batch_norm=True, crops_for_keys=(0, 1), batch_norm_groups=groups)
    if sync:
        convert_sync_batch_norm(method, group_size=None, device_type="cpu")
    losses, gradients = train(method, [[share(images(s, 3))] for s in range(STEPS)])
    teacher = [p.clone() for p in method.teacher.parameters()]
    return losses, gradients, teacher, method.queue.keys.clone(), int(method.queue.next_row)


def _both() -> list[tuple[Any, ...]]:
    return [_trained(False, 2), _trained(False, 4), _trained(True, None)]


@pytest.mark.slow
def test_two_ranks_equal_one_with_the_same_groups_shuffled_or_synchronised() -> None:
    alone = [_trained(False, 2), _trained(False, 4), _trained(True, None)]
    for together in run_ranks(_both, 2):
        for (loss, *tensors, row), (other, *others, other_row) in zip(alone, together, strict=True):
            assert other == pytest.approx(loss, rel=1e-4) and other_row == row
            for mine, theirs in zip(tensors, others, strict=True):
                torch.testing.assert_close(theirs, mine, rtol=1e-3, atol=1e-5)
    losses = [run[0] for run in alone]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)  # groups do make a difference
    assert losses[0] != pytest.approx(losses[2], rel=1e-4)


def groups_of(method: MoCoV2, step: int) -> list[list[int]]:
    """The images of each pass of the teacher in a step."""
    method.teacher.backbone.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0][:, 0].long().tolist())
    )
    seen: list[list[int]] = []
    rows = images(0)
    rows[:, :, 0] = torch.arange(IMAGES)  # the number of an image is its first value
    method.before_step(Progress(step, 4, 8), [batch_of(rows)])
    method(batch_of(rows), 0)
    return seen


def test_the_teacher_sees_every_image_once_in_groups_that_change_with_the_step() -> None:
    first, again, later = (
        groups_of(build(batch_norm=True, batch_norm_groups=4), step) for step in (0, 0, 1)
    )
    for seen in (first, later):
        assert [len(group) for group in seen] == [2, 2, 2, 2]
        assert sorted(chain(*seen)) == list(range(IMAGES))
        assert list(chain(*seen)) != list(range(IMAGES))
    assert first == again != later


@pytest.mark.parametrize(("batch_norm", "groups"), [(False, 4), (True, 1), (True, None)])
def test_nothing_is_permuted_where_every_layer_sees_all_rows(
    batch_norm: bool, groups: int | None
) -> None:
    seen = groups_of(build(batch_norm=batch_norm, batch_norm_groups=groups), 0)
    assert seen == [list(range(IMAGES))]


def test_shuffled_keys_are_those_of_their_own_images() -> None:
    """Evaluation mode: what the teacher says of an image does not depend on its company."""
    method = build(batch_norm=True, batch_norm_groups=4)
    method.teacher.eval()
    train(method, [[batch_of(images(0))]])
    expected = build(batch_norm=True).teacher.eval()([images(0)[1]]).embeddings
    torch.testing.assert_close(method.queue.keys[:IMAGES], expected, rtol=1e-5, atol=1e-6)


def test_accumulated_micro_batches_are_the_large_batch() -> None:
    """Of every step, so also of what entered the queue in the steps before."""
    whole, parts = build(3), build(3, micro_steps=2)
    steps = [images(step, 3) for step in range(STEPS)]
    losses, gradients = train(whole, [[batch_of(rows)] for rows in steps])
    others, theirs = train(parts, [[batch_of(r) for r in rows.chunk(2, 1)] for rows in steps])
    assert others == pytest.approx(losses, rel=1e-5)
    for ours, other in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parts.queue.keys, whole.queue.keys, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "queries"), [((1,), [0, 2, 3]), ((0,), [1, 2, 3]), ((0, 1), [0, 1, 2, 3])]
)
def test_every_view_but_a_lone_key_is_a_query(keys: tuple[int, ...], queries: list[int]) -> None:
    method = build(4, crops_for_keys=keys)
    assert method.query_crops == queries
    rows = images(0, 4)
    method.before_step(Progress(0, 4, 8), [batch_of(rows)])
    output = method(batch_of(rows), 0)
    student = nn.Sequential(method.backbone, method.head.mlp)
    z = [F.normalize(student(view), dim=1) for view in rows]  # the teacher is still the student
    losses = []
    for query in queries:
        for key in keys:
            if query != key:
                logits = torch.cat(
                    [(z[query] * z[key].detach()).sum(1, True), z[query] @ method.queue.keys.T], 1
                )
                losses.append(F.cross_entropy(logits / 0.2, torch.zeros(IMAGES, dtype=torch.int64)))
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())
    torch.testing.assert_close(output.embeddings, torch.cat([z[query] for query in queries]))


def test_the_queue_is_the_papers_or_a_quarter_of_the_images() -> None:
    assert build(queue_samples=None, samples=100).queue.length == 24
    assert build(queue_samples=None, samples=9).queue.length == IMAGES  # at least a batch
    assert build(queue_samples=None, samples=1_281_167).queue.length == 65_536
    numbers = build(queue_samples=30).derived_numbers()
    assert numbers == {"queue": "30 // 8 x 8 = 24", "batch_norm_groups": "1 x 1 of 8 images"}


@pytest.mark.parametrize(
    ("views", "config", "message"),
    [
        (1, {}, "emits 1 view"),
        (2, {"crops_for_keys": (2,)}, r"method.crops_for_keys: \[2\]"),
        (2, {"queue_samples": 7}, "7 keys are less than the 8"),
        (2, {"batch_norm_groups": 3}, "do not make 3 equal groups"),
    ],
)
def test_impossible_choices_are_named(views: int, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(views, **config)
