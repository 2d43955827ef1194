"""SimCLR's multi-crop loss against equation (7), NT-Xent, VISSL's numbers and its memory bound."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.losses.simclr import SimCLRLoss

DATA = Path(__file__).parents[1] / "data"
GOLDEN = DATA / "vissl_simclr.npz"


def make(**fields: Any) -> SimCLRLoss:
    return SimCLRLoss(SimCLRLoss.Config(**fields))


def unit(rows: int, dim: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


def by_the_equation(z: Tensor, views: int, tau: float) -> Tensor:
    """Equation (7), term by term."""
    images = len(z) // views
    total = z.new_zeros(())
    for i in range(len(z)):
        negatives = sum((z[i] @ z[j] / tau).exp() for j in range(len(z)) if (j - i) % images)
        for p in range(i % images, len(z), images):
            if p != i:
                positive = (z[i] @ z[p] / tau).exp()
                total = total - (positive / (positive + negatives)).log()
    return total / (len(z) * (views - 1))


@pytest.mark.parametrize("views", [2, 3, 5])
@pytest.mark.parametrize("tau", [0.1, 0.7])
def test_equals_equation_7_in_value_and_gradient(views: int, tau: float) -> None:
    ours, theirs = (unit(4 * views).requires_grad_() for _ in range(2))
    loss, expected = make(temperature=tau)(ours, views), by_the_equation(theirs, views, tau)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


def test_two_crops_are_nt_xent() -> None:
    z = unit(12)
    logits = (z @ z.T / 0.1).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(logits, torch.arange(12).roll(6))
    torch.testing.assert_close(make()(z, 2), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("block_rows", [1, 2, 3, 7, 19, 20, 21, 256])
@pytest.mark.parametrize("views", [2, 4, 5])
def test_the_block_size_does_not_matter(block_rows: int, views: int) -> None:
    whole, blocked = (unit(20).requires_grad_() for _ in range(2))
    expected = make(block_rows=20)(whole, views)
    loss = make(block_rows=block_rows)(blocked, views)
    expected.backward()
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(blocked.grad, whole.grad, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("views", [2, 4, 6])
def test_reproduces_vissl_on_one_rank(views: int) -> None:
    golden = np.load(GOLDEN, allow_pickle=False)
    key = f"w1_r0_V{views}"
    for kind in ["multicrop", "simclr"] if views == 2 else ["multicrop"]:
        raw = torch.from_numpy(golden[f"{key}_in"]).requires_grad_()
        loss = make(temperature=float(golden["set_T"]))(F.normalize(raw, dim=1), views)
        loss.backward()
        expected = golden[f"{key}_{kind}_loss"].item()
        torch.testing.assert_close(loss.item(), expected, rtol=1e-6, atol=0)
        gradient = torch.from_numpy(golden[f"{key}_{kind}_grad"])
        torch.testing.assert_close(raw.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("views", [2, 4, 6])
@pytest.mark.parametrize("world", [1, 2])
def test_reproduces_equation_7_of_the_whole_world(world: int, views: int) -> None:
    golden = np.load(GOLDEN, allow_pickle=False)
    keys = [f"w{world}_r{rank}_V{views}" for rank in range(world)]
    raw = [torch.from_numpy(golden[f"{k}_in"]).double().requires_grad_() for k in keys]
    z = [F.normalize(r, dim=1) for r in raw]
    loss_of = make(temperature=float(golden["set_T"]))
    losses = [
        loss_of(z[rank], views, gather=lambda _: torch.cat(z), rank=rank, world_size=world)
        for rank in range(world)
    ]
    loss = torch.stack(losses).mean()
    loss.backward()
    for key, leaf in zip(keys, raw, strict=True):
        expected = golden[f"{key}_eq7_f64_global_loss"].item()
        torch.testing.assert_close(loss.item(), expected, rtol=1e-12, atol=0)
        gradient = torch.from_numpy(golden[f"{key}_eq7_f64_global_grad"])
        torch.testing.assert_close(leaf.grad, gradient, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("views", [2, 4, 6])
@pytest.mark.parametrize("rank", [0, 1])
def test_local_negatives_reproduce_vissl_multicrop_on_two_ranks(rank: int, views: int) -> None:
    golden = np.load(GOLDEN, allow_pickle=False)
    key = f"w2_r{rank}_V{views}"
    raw = torch.from_numpy(golden[f"{key}_in"]).double().requires_grad_()
    loss_of = make(temperature=float(golden["set_T"]), negatives="local")
    loss = loss_of(F.normalize(raw, dim=1), views, rank=rank, world_size=2)
    loss.backward()
    expected = golden[f"{key}_eq7_f64_localnegs_loss"].item()
    torch.testing.assert_close(loss.item(), expected, rtol=1e-12, atol=0)
    gradient = torch.from_numpy(golden[f"{key}_multicrop_grad"]).double()
    torch.testing.assert_close(raw.grad, gradient, rtol=1e-4, atol=1e-6)


def rank_result(views: int, negatives: str) -> tuple[float, Tensor]:
    """This rank's loss of the stored inputs, and its gradient as DDP would average it."""
    rank = comm.rank()
    golden = np.load(GOLDEN, allow_pickle=False)
    raw = torch.from_numpy(golden[f"w2_r{rank}_V{views}_in"]).double().requires_grad_()
    loss = make(negatives=negatives)(F.normalize(raw, dim=1), views)
    loss.backward()
    assert raw.grad is not None
    return loss.item(), raw.grad / comm.world_size()


@pytest.mark.parametrize("views", [2, 4, 6])
def test_two_processes_compute_equation_7_of_both(views: int) -> None:
    golden = np.load(GOLDEN, allow_pickle=False)
    results = run_ranks(rank_result, 2, views, "global")
    mean = sum(loss for loss, _ in results) / 2
    for rank, (loss, gradient) in enumerate(results):
        key = f"w2_r{rank}_V{views}"
        assert mean == pytest.approx(golden[f"{key}_eq7_f64_global_loss"].item(), rel=1e-12)
        expected = torch.from_numpy(golden[f"{key}_eq7_f64_global_grad"])
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-13)
        if views == 2:  # VISSL's two-crop loss has its negatives on all ranks
            assert loss == pytest.approx(golden[f"{key}_simclr_loss"].item(), rel=1e-6)


def test_local_negatives_ignore_the_other_process() -> None:
    golden = np.load(GOLDEN, allow_pickle=False)
    for rank, (loss, _) in enumerate(run_ranks(rank_result, 2, 4, "local")):
        expected = golden[f"w2_r{rank}_V4_eq7_f64_localnegs_loss"].item()
        assert loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("views", [2, 6])
def test_equal_embeddings_cost_the_log_of_one_plus_the_negatives(views: int) -> None:
    z = F.normalize(torch.ones(5 * views, 8), dim=1)
    assert make()(z, views).item() == pytest.approx(math.log(1 + 4 * views), rel=1e-6)


def test_another_positive_is_not_in_the_denominator() -> None:
    z = torch.eye(8, dtype=torch.float64)[[0, 4, 0, 4, 1, 5]]  # 2 images, 3 crops
    # The third crop is orthogonal to all: of the 12 ordered pairs, 4 have s = 1/tau, 8 have s = 0;
    # each has 3 negatives with s = 0.
    tau = 0.5
    near, far = math.log1p(3 * math.exp(-1 / tau)), math.log1p(3)
    expected = (4 * near + 8 * far) / 12
    assert make(temperature=tau)(z, 3).item() == pytest.approx(expected, rel=1e-12)


def test_the_order_of_images_and_of_views_does_not_matter() -> None:
    z = unit(20)
    shuffled = z.view(4, 5, 8)[torch.randperm(4)][:, torch.randperm(5)].reshape(20, 8)
    torch.testing.assert_close(make()(shuffled, 4), make()(z, 4), rtol=1e-12, atol=0)


@pytest.mark.parametrize("views", [2, 3])
def test_a_single_image_has_zero_loss_and_a_zero_gradient(views: int) -> None:
    z = unit(views).requires_grad_()
    loss = make()(z, views)
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert not z.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tau", [0.001, 0.1])
def test_half_embeddings_with_cosines_of_one_stay_finite(dtype: torch.dtype, tau: float) -> None:
    z = unit(12).to(dtype)
    z[:6] = z[0]  # cosines of 1 between positives and between negatives: logits up to 1 / tau
    z.requires_grad_()
    loss = make(temperature=tau)(z, 3)
    loss.backward()
    assert loss.dtype == torch.float32
    assert z.grad is not None
    assert loss.isfinite() and z.grad.isfinite().all()
    exact = make(temperature=tau)(z.detach().double(), 3)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-4, atol=0)


def test_autocast_changes_nothing() -> None:
    plain, lowered = (unit(20).float().requires_grad_() for _ in range(2))
    expected = make(block_rows=8)(plain, 4)
    expected.backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = make(block_rows=8)(lowered, 4)
    loss.backward()
    assert torch.equal(loss, expected)
    assert plain.grad is not None and lowered.grad is not None
    assert torch.equal(lowered.grad, plain.grad)


GROWTH = """
import resource, sys, torch
from unlabeled.losses.simclr import SimCLRLoss

def peak_mib():
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

def run(crops):
    # Of 16 numbers, not 128: what would be quadratic does not depend on it, and it is quicker.
    z = torch.nn.functional.normalize(torch.randn(crops, 16), dim=1).requires_grad_()
    loss = SimCLRLoss(SimCLRLoss.Config())(z, 8)
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()

run(16)  # libraries and thread pools
before = peak_mib()
run(int(sys.argv[1]))
print(peak_mib() - before)
"""


@pytest.mark.slow
def test_32768_crops_need_a_few_hundred_mib() -> None:
    command = [sys.executable, "-c", GROWTH, "32768"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    assert float(done.stdout) < 400  # MiB; 32768^2 float32 similarities alone take 4096


def test_faults_name_the_field() -> None:
    faults = dict(SimCLRLoss.Config(temperature=-1.0, block_rows=0).problems())
    assert set(faults) == {"temperature", "block_rows"}
    assert not list(SimCLRLoss.Config().problems())
