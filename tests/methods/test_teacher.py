"""The teacher is the average of its students that the equation says, wherever it is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests_support.in_process import different, tiny_trainer
from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.distributed.parallel import DataParallel, Parallel
from unlabeled.distributed.shards import is_sharded, local
from unlabeled.distributed.shards import whole as all_rows
from unlabeled.engine import checkpoint
from unlabeled.engine.stored_backbones import backbone_state
from unlabeled.methods.base import Progress
from unlabeled.methods.teacher import Teacher, cosine_momentum
from unlabeled.models.backbone_files import load_backbone_state
from unlabeled.models.backbones.vit import ViT
from unlabeled.models.heads.projection import ProjectionHead

DATA = Path(__file__).parents[1] / "data"
CPU = torch.device("cpu")


def network(seed: int) -> tuple[nn.Module, nn.Module]:
    """A backbone with batch normalisation, and a head."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)), nn.Linear(8, 4)


def numbers(*modules: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()])


def test_a_weight_follows_by_hand() -> None:
    backbone, head = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        backbone.weight.fill_(0.0), head.weight.fill_(8.0)
        teacher = Teacher(backbone, head)
        found = []
        for student, momentum in ((1.0, 0.5), (2.0, 0.5), (4.0, 0.75), (-4.0, 0.875)):
            backbone.weight.fill_(student), head.weight.fill_(2 * student)
            teacher.update(backbone, head, momentum)
            found.append(numbers(teacher).tolist())
    # 0 -> 1/2 -> 5/4 -> 15/16 + 1 = 31/16 -> 217/128 - 1/2 = 153/128; and from 8 twice as much.
    expected = [[0.5, 5.0], [1.25, 4.5], [1.9375, 5.375], [1.1953125, 3.703125]]
    assert found == expected


def test_many_updates_are_the_weighted_sum_of_the_students() -> None:
    steps, momentum = 60, 0.97
    teacher = Teacher(*network(0))
    expected = numbers(teacher).double() * momentum**steps
    for step in range(steps):
        student = network(step + 1)
        teacher.update(*student, momentum)
        weight = (1 - momentum) * momentum ** (steps - 1 - step)
        expected += weight * numbers(*student).double()
    torch.testing.assert_close(numbers(teacher).double(), expected, rtol=1e-5, atol=1e-7)


def test_zero_copies_one_keeps_and_an_equal_student_changes_nothing() -> None:
    student = network(1)
    teacher = Teacher(*network(0))
    first = numbers(teacher)
    teacher.update(*student, 1.0)
    assert torch.equal(numbers(teacher), first)
    teacher.update(*student, 0.0)
    assert torch.equal(numbers(teacher), numbers(*student))
    for momentum in (0.9, 0.996, 0.999999):
        teacher.update(*student, momentum)
        assert torch.equal(numbers(teacher), numbers(*student))


def test_it_starts_as_a_copy_that_takes_no_gradient() -> None:
    backbone, head = network(0)
    teacher = Teacher(backbone, head)
    assert torch.equal(numbers(teacher), numbers(backbone, head))
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in (*backbone.parameters(), *head.parameters()))
    assert not teacher([torch.randn(5, 6, requires_grad=True)]).requires_grad
    with torch.no_grad():
        head.weight.zero_()
    assert not torch.equal(teacher.head.weight, head.weight)


def test_running_statistics_are_those_of_its_own_batches() -> None:
    backbone, head = network(0)
    teacher = Teacher(backbone, head)
    oracle, _ = network(0)
    for seed in (1, 2):
        torch.manual_seed(seed)
        seen = torch.randn(9, 6)
        backbone(torch.randn(9, 6) + 5)  # what the student sees is nothing to it
        oracle(seen)
        teacher([seen])
        teacher.update(backbone, head, 0.5)  # the student's weights are still the first ones
    buffers = dict(teacher.backbone.named_buffers())
    assert buffers.keys() == dict(oracle.named_buffers()).keys()
    for name, expected in oracle.named_buffers():
        torch.testing.assert_close(buffers[name], expected, msg=name)
    assert not torch.equal(buffers["1.running_mean"], backbone.get_buffer("1.running_mean"))


def test_views_are_the_heads_rows_one_view_after_the_other() -> None:
    teacher = Teacher(nn.Flatten(), nn.Linear(12, 4))
    views = list(torch.randn(2, 5, 3, 2, 2))
    expected = torch.cat([teacher.head(view.flatten(1)) for view in views])
    torch.testing.assert_close(teacher(views), expected)


def test_it_skips_no_blocks_and_draws_no_random_numbers() -> None:
    config = ViT.Config(width=8, depth=3, heads=2, patch=4, image_size=8, drop_path=0.9)
    backbone, images = ViT(config), torch.randn(4, 3, 8, 8)
    teacher = Teacher(backbone, nn.Identity())
    assert backbone.training and teacher.training
    before = torch.get_rng_state()
    first = teacher([images])
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(first, backbone.eval()(images))
    assert not torch.equal(first, backbone.train()(images))  # the student still does


def test_the_schedule_by_hand() -> None:
    values = [cosine_momentum(Progress(k, 2, 4), 0.9) for k in range(6)]
    half = 0.05 * 2**-0.5  # cos(pi / 4) = 1 / sqrt(2)
    expected = [0.9, 0.95 - half, 0.95, 0.95 + half, 1.0, 1.0]
    assert values == pytest.approx(expected, abs=1e-12)
    assert values[0] == 0.9 and values[-1] == 1.0
    assert [cosine_momentum(Progress(k, 2, 4), 0.7, 0.7) for k in range(6)] == [0.7] * 6


def test_the_schedule_is_that_of_the_official_dino() -> None:
    with np.load(DATA / "dino_misc.npz", allow_pickle=False) as golden:
        arguments = golden["sched_mom_base_final_epochs_niter_warmup_start"]
        expected = golden["sched_mom"]
    start, end, epochs, steps, warmup, _ = arguments.tolist()
    assert warmup == 0
    total = int(epochs * steps)
    found = [cosine_momentum(Progress(k, int(steps), total), start, end) for k in range(total)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


class Momentum(nn.Module):
    """A student that is trained towards its teacher's rows."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = network(0)
        self.teacher = Teacher(self.backbone, self.head)

    def forward(self, rows: Tensor) -> Tensor:
        error: Tensor = (self.head(self.backbone(rows)) - self.teacher([rows]) - 1).square().mean()
        return error


def trained(parallel: Parallel, steps: range) -> None:
    """Each rank on rows of its own."""
    method = parallel.module
    assert isinstance(method, Momentum)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.3)
    for step in steps:
        rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(10 * step + comm.rank()))
        optimizer.zero_grad()
        parallel(rows).backward()
        parallel.complete_gradients()
        optimizer.step()
        method.teacher.update(
            method.backbone, method.head, cosine_momentum(Progress(step, 5, 5), 0.5)
        )


def parameters(method: nn.Module) -> dict[str, Tensor]:
    return {name: all_rows(p).detach().clone() for name, p in method.named_parameters()}


def test_the_state_is_all_that_the_next_steps_need() -> None:
    first, second = Momentum(), Momentum()
    trained(DataParallel(first, CPU), range(3))
    second.load_state_dict(first.state_dict())
    for method in (first, second):
        trained(DataParallel(method, CPU), range(3, 5))
    assert not different(first.state_dict(), second.state_dict())


def _on_ranks() -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """The parameters after five steps, whole and in shards, and the numbers held of the teacher."""
    from unlabeled.distributed.sharding import ShardedParallel

    alike, divided = Momentum(), Momentum()
    trained(DataParallel(alike, CPU), range(5))
    parallel = ShardedParallel(
        divided,
        units=[divided.backbone, divided.head, divided.teacher.backbone, divided.teacher.head],
        whole=[p for p in divided.parameters() if p.ndim < 2],
        divided=(),
        device=CPU,
        dtype=torch.float32,
    )
    parallel.start()
    trained(parallel, range(5))
    held = [local(p).numel() for p in divided.teacher.parameters() if is_sharded(p)]
    return parameters(alike), parameters(divided), sum(held)


@pytest.mark.slow
def test_ranks_have_the_same_teacher_whole_or_in_shards() -> None:
    (first, sharded, held), (second, _, _) = run_ranks(_on_ranks, 2)
    assert not different(first, second)
    assert held == (6 * 8 + 8 * 4) // 2
    for name, expected in first.items():
        torch.testing.assert_close(sharded[name], expected, msg=name)
    moved = Momentum().state_dict()
    assert not torch.equal(first["teacher.head.weight"], moved["teacher.head.weight"])


@pytest.mark.slow
def test_a_run_for_its_teacher_measures_keeps_and_exports_the_teacher(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, "method=simclr", "max_steps=1", "hooks.knn_probe=null")
    method = trainer.method
    assert isinstance(method.head, ProjectionHead)
    method.teacher = Teacher(method.backbone, method.head)
    method.evaluated = "teacher.backbone"
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(-1.0)
    trainer.fit()
    kept = method.teacher.backbone.state_dict()
    assert different(kept, method.backbone.state_dict())
    newest = checkpoint.newest(trainer.run.checkpoints)
    assert newest is not None
    assert not different(backbone_state(newest, method.backbone), kept)
    assert not different(load_backbone_state(tmp_path / "weights" / "backbone.safetensors"), kept)
    method.eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(method.encode(images), method.teacher.backbone(images))
