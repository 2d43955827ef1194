"""SwAV against what the official training loop computed, iteration by iteration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests_support.ranks import run_ranks
from unlabeled.assigners.sinkhorn import Sinkhorn
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.distributed import comm
from unlabeled.distributed.group import data_parallel
from unlabeled.losses.swav import SwAVLoss
from unlabeled.methods.base import DataFacts, Progress
from unlabeled.methods.swav import SwAV
from unlabeled.models.heads.prototypes import PrototypesHead
from unlabeled.optim.optimizers.larc import LARC

DATA = Path(__file__).parents[1] / "data"
STEPS_PER_EPOCH = 4


def build(golden: dict[str, np.ndarray], prefix: str, **config: object) -> SwAV:
    """The golden vectors' toy network: the identity, then Linear -> normalise -> prototypes."""
    batch, world = int(golden["set_B"]), int(golden["set_world"])
    head = PrototypesHead(
        PrototypesHead.Config(
            hidden_dim=1,
            num_hidden_layers=0,
            output_dim=int(golden["set_D"]),
            batch_norm=False,
            num_prototypes=[int(golden["set_K"])],
        ),
        feature_dim=int(golden["set_din"]),
        num_classes=0,
    )
    linear = next(m for m in head.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(golden[prefix + "W0"]))
        linear.bias.copy_(torch.from_numpy(golden[prefix + "b0"]))
        head.prototypes[0].weight.copy_(torch.from_numpy(golden[prefix + "C0"]))
    settings = {
        "crops_for_assign": (0, 1),
        "freeze_prototypes_steps": int(golden["set_freeze"]),
        "queue_samples": int(golden["set_qlen"]),
        "queue_start_epoch": 0,
        **config,
    }
    views = golden[prefix + "inputs"].shape[1]
    return SwAV(
        SwAV.Config(**settings),
        backbone=nn.Identity(),
        head=head,
        loss=SwAVLoss(SwAVLoss.Config(temperature=float(golden["set_tau"]))),
        assigner=Sinkhorn(
            Sinkhorn.Config(epsilon=float(golden["set_eps"]), iterations=int(golden["set_sk"]))
        ),
        facts=DataFacts(
            num_samples=1000,
            num_classes=0,
            views=(ViewSpec(10, "global"),) * views,
            batch_size=batch * world,
            micro_batch_size=batch,
            steps_per_epoch=STEPS_PER_EPOCH,
            seed=0,
        ),
    )


def close(actual: Tensor, expected: np.ndarray, atol: float = 2e-6) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, atol=atol, rtol=2e-5)


def compare_with_official_loop(name: str) -> None:
    """Two epochs of training, compared at every iteration, on this rank."""
    with np.load(DATA / name, allow_pickle=False) as file:
        golden = dict(file)
    prefix = f"r{comm.rank()}_" if comm.world_size() > 1 else ""
    get = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    method = build(golden, prefix)
    linear = next(m for m in method.head.modules() if isinstance(m, nn.Linear))
    prototypes = method.head.prototypes[0].weight
    optimizer = LARC(
        LARC.Config(
            momentum=float(golden["set_momentum"]),
            weight_decay=float(golden["set_wd"]),
            trust_coefficient=float(golden["set_trust"]),
        ),
        named_parameters=list(method.named_parameters()),
    )
    parallel = data_parallel(method, torch.device("cpu"))
    inputs = torch.from_numpy(get["inputs"])  # [it, V, B, din]
    for step in range(len(inputs)):
        batch = Batch(list(inputs[step]), torch.arange(inputs.shape[2]), None)
        progress = Progress(step, STEPS_PER_EPOCH, len(inputs))
        if "queue_before_it_and_final" in get:
            close(method.queue.features, get["queue_before_it_and_final"][step])
        with torch.no_grad():
            method.before_step(progress, [batch])
        close(prototypes, get["C_norm"][step])
        optimizer.zero_grad(set_to_none=True)
        output = parallel(batch, 0)
        close(output.embeddings, get["emb"][step])
        expected_codes = [get[f"it{step}_a{i}_q"][-inputs.shape[2] :] for i in (0, 1)]
        close(output.codes, np.concatenate(expected_codes))
        close(output.loss, get["loss"][step])
        output.loss.backward()
        method.after_backward(progress)
        assert (prototypes.grad is None) == bool(get["gradC_is_none"][step])
        if prototypes.grad is not None:
            close(prototypes.grad, get["gradC_step"][step])
        close(linear.weight.grad, get["gradW_step"][step])
        for group in optimizer.param_groups:
            group["lr"] = float(get["lr"][step])
        optimizer.step()
        close(linear.weight, get["W_after"][step])
        close(linear.bias, get["b_after"][step])
        close(prototypes, get["C_after"][step])
    if "queue_before_it_and_final" in get:
        close(method.queue.features, get["queue_before_it_and_final"][len(inputs)])


@pytest.mark.parametrize("queue", ["noqueue", "queue"])
def test_two_epochs_equal_the_official_loop(queue: str) -> None:
    compare_with_official_loop(f"swav_train_{queue}_w1.npz")


def both_on_two_ranks() -> None:
    for queue in ("noqueue", "queue"):
        compare_with_official_loop(f"swav_train_{queue}_w2.npz")


def test_two_ranks_equal_the_official_loop() -> None:
    run_ranks(both_on_two_ranks, 2)


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / name, allow_pickle=False) as file:
        return dict(file)


def gradients(method: SwAV, batches: list[Batch]) -> tuple[float, list[Tensor]]:
    """Mean loss and gradients over accumulated micro-batches."""
    with torch.no_grad():
        method.before_step(Progress(5, STEPS_PER_EPOCH, 8), batches)
    method.zero_grad()
    losses = []
    for micro_step, batch in enumerate(batches):
        loss = method(batch, micro_step).loss
        (loss / len(batches)).backward()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses), [p.grad.clone() for p in method.parameters()]


def test_codes_over_the_accumulated_batch_equal_the_large_batch() -> None:
    golden = load("swav_train_noqueue_w1.npz")
    inputs = torch.from_numpy(golden["inputs"])[0]  # [V, B, din]
    whole = Batch(list(inputs), torch.arange(8), None)
    halves = [
        Batch(list(inputs[:, r]), torch.arange(8)[r], None) for r in (slice(0, 4), slice(4, 8))
    ]
    loss, grads = gradients(build(golden, ""), [whole])
    same, same_grads = gradients(build(golden, "", codes_over="accumulated_batch"), halves)
    other, _ = gradients(build(golden, ""), halves)
    assert same == pytest.approx(loss, rel=1e-6)
    for ours, theirs in zip(same_grads, grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
    assert abs(other - loss) > 1e-4  # balanced alone, micro-batches get other codes


def test_hard_codes_are_one_hot_and_soft_codes_are_not() -> None:
    golden = load("swav_train_noqueue_w1.npz")
    batch = Batch(list(torch.from_numpy(golden["inputs"])[0]), torch.arange(8), None)
    soft, hard = build(golden, ""), build(golden, "")
    hard.assigner = Sinkhorn(Sinkhorn.Config(hard=True))
    codes = {}
    for name, method in (("soft", soft), ("hard", hard)):
        with torch.no_grad():
            method.before_step(Progress(0, 4, 8), [batch])
            codes[name] = method(batch, 0).codes
    assert set(codes["hard"].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(codes["hard"].argmax(1), codes["soft"].argmax(1))
    assert ((codes["soft"] > 0.01) & (codes["soft"] < 0.99)).any()


@pytest.mark.parametrize(("batch", "queue", "length"), [(8, 24, 24), (8, 25, 24), (8, 7, 0)])
def test_queue_length_is_cut_to_whole_batches(batch: int, queue: int, length: int) -> None:
    golden = load("swav_train_queue_w1.npz") | {
        "set_qlen": np.array(queue),
        "set_B": np.array(batch),
    }
    assert build(golden, "").queue.length == length
