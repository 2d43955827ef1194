"""Half precision trains, float32 is left alone, and what is stored is float32 either way."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests_support.in_process import METHODS, different, state_of, tiny_trainer, trained
from tests_support.saving import saved
from unlabeled.engine import checkpoint
from unlabeled.engine.precision import Precision
from unlabeled.engine.run_directory import RunDirectory

CPU = torch.device("cpu")
# oneDNN's bfloat16 weight gradient of a strided convolution over 1x1 maps is garbage on CPUs with
# AVX512_BF16 (torch 2.15), and 8 px crops end in such maps: these crops do not.
CROPS = (
    "dataset.image_size=32",
    "transform.crops=[{count: 2, size: 32, scale: [0.3, 1.0], role: global, operations: null}, "
    "{count: 1, size: 20, scale: [0.1, 0.3], role: local, operations: null}]",
)


def losses(run: Path) -> list[float]:
    return [r["loss"] for r in RunDirectory(run).metrics() if r["phase"] == "train"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_in_half_precision(method: str, precision: str, tmp_path: Path) -> None:
    choices = (f"method={method}", *CROPS, "hooks.knn_probe=null", "max_steps=5")
    trainer = trained(tmp_path / "half", *choices, f"precision={precision}")
    found = losses(tmp_path / "half")
    assert len(found) == 5
    assert all(map(math.isfinite, found))
    for name, tensor in state_of(trainer).items():
        assert tensor.dtype is torch.float32 or not tensor.is_floating_point(), name
        assert bool(torch.isfinite(tensor.float()).all()), name
    if method not in ("deepcluster_v2", "sela_v2"):  # k-means may end elsewhere for other last bits
        trained(tmp_path / "full", *choices, "max_steps=1")
        # 8 bits of mantissa: about 0.4 % on activations.
        assert found[0] == pytest.approx(losses(tmp_path / "full")[0], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_really_used(precision: str, tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, f"precision={precision}", "max_steps=1")
    seen = []
    convolution = next(m for m in trainer.method.modules() if isinstance(m, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trainer.forward_backward(trainer.fetch(trainer.data.training(0, 1)))
    assert set(seen) == {{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]}


@pytest.mark.slow
def test_supervised_learning_in_bf16_lowers_the_loss(tmp_path: Path) -> None:
    sgd = ("optimizer=sgd", "scheduler.lr=1")
    choices = ("method=supervised", *CROPS, *sgd, "hooks.knn_probe=null")
    trained(tmp_path, *choices, "precision=bf16", "epochs=12")
    found = losses(tmp_path)
    assert sum(found[-4:]) < 0.9 * sum(found[:4])


def test_float32_is_the_identity() -> None:
    """Gradients, updates and activations are those of plain torch, bit for bit."""
    results = []
    for precision in (None, Precision("fp32", CPU)):
        torch.manual_seed(0)
        layer = torch.nn.Linear(5, 3)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        images = torch.randn(4, 5)
        if precision is None:
            loss = layer(images).square().mean()
            loss.backward()
            optimizer.step()
        else:
            with precision.autocast():
                loss = layer(images).square().mean()
            assert loss.dtype is torch.float32
            precision.backward(loss)
            precision.unscale(optimizer)
            precision.step(optimizer)
            assert not precision.scaler.state_dict()
        results.append({"weight": layer.weight.detach(), "gradient": layer.weight.grad})
    assert not different(*results)


def test_an_overflowing_float16_gradient_costs_a_step_and_no_weight() -> None:
    precision = Precision("fp16", CPU)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    before = precision.scaler.get_scale()
    precision.backward((weight * torch.tensor([1.0, math.inf, 1.0])).sum())
    precision.unscale(optimizer)
    precision.step(optimizer)
    assert torch.equal(weight.detach(), torch.ones(3))
    assert precision.scaler.get_scale() == before / 2


def test_unscaled_gradients_are_true_ones() -> None:
    """What clipping and LARC see does not depend on the loss scale."""
    precision = Precision("fp16", CPU)
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    precision.backward((weight**2).sum())
    assert weight.grad is not None
    assert not torch.equal(weight.grad, torch.tensor([2.0, 4.0]))
    precision.unscale(optimizer)
    assert torch.equal(weight.grad, torch.tensor([2.0, 4.0]))


@pytest.mark.slow
def test_the_loss_scale_is_part_of_a_checkpoint(tmp_path: Path) -> None:
    trainer = trained(tmp_path, "precision=fp16", "max_steps=2", "hooks.knn_probe=null")
    trainer.precision.scaler.update(new_scale=128.0)
    path = saved(trainer, 3)
    other = tiny_trainer(tmp_path / "other", "precision=fp16")
    checkpoint.restore(
        checkpoint.load(path),
        method=other.method,
        optimizer=other.optimizer,
        scaler=other.precision.scaler,
        present=other.round,
    )
    assert other.precision.scaler.get_scale() == 128.0
