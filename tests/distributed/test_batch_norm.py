"""Batch normalisation over ranks against one process's BatchNorm of the concatenated batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.distributed.batch_norm import CpuSyncBatchNorm, convert_sync_batch_norm
from unlabeled.errors import ConfigError

CHANNELS = 5
SHAPES = {"1d": (12, CHANNELS), "sequence": (12, CHANNELS, 7), "2d": (12, CHANNELS, 4, 3)}


class Odd(nn.BatchNorm2d):
    """A layer that does more than its base, as timm's fused activations do."""


def layer_for(shape: tuple[int, ...], **fields: Any) -> nn.Module:
    """A layer with parameters of its own, the same on every call."""
    layer = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(CHANNELS, **fields)
    if layer.affine:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            layer.weight.copy_(torch.rand(CHANNELS, generator=generator) + 0.5)
            layer.bias.copy_(torch.randn(CHANNELS, generator=generator))
    return layer


def data(shape: tuple[int, ...], offset: float = 0.0, step: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs whose mean differs from row to row, and the gradient of their outputs, in float64."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x += torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) / 6 + offset
    return x, torch.randn(shape, generator=generator, dtype=torch.float64)


def two_steps(
    layer: nn.Module, batches: list[tuple[Tensor, Tensor]], probe: Tensor
) -> dict[str, Tensor]:
    """Outputs and gradients of two training steps, the state after them, an evaluation."""
    results = {}
    for number, (x, gradient) in enumerate(batches):
        x = x.clone().requires_grad_()
        y = layer(x)
        assert y.dtype == x.dtype
        y.backward(gradient.to(y.dtype))
        assert x.grad is not None
        results[f"y{number}"], results[f"dx{number}"] = y.detach(), x.grad
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None
        results[f"d{name}"] = parameter.grad
    results.update({f"state {k}": v for k, v in layer.state_dict().items()})
    results["eval"] = layer.eval()(probe).detach()
    return results


def two_steps_of_shards(cases: list[dict[str, Any]], group_size: int | None) -> list[Any]:
    results = []
    for case in cases:
        layer = convert_sync_batch_norm(
            layer_for(case["shape"], **case["fields"]), group_size=group_size, device_type="cpu"
        )
        assert isinstance(layer, CpuSyncBatchNorm)
        layer = layer.to(case["layer_dtype"])
        shards = [(x[comm.rank()], g[comm.rank()]) for x, g in case["batches"]]
        results.append(two_steps(layer, shards, case["probe"]))
    return results


def case_for(
    shape: tuple[int, ...],
    parts: list[int],
    dtype: torch.dtype = torch.float64,
    offset: float = 0.0,
    layer_dtype: torch.dtype = torch.float64,
    **fields: Any,
) -> dict[str, Any]:
    batches = [data(shape, offset, step) for step in range(2)]
    return {
        "shape": shape,
        "fields": fields,
        "layer_dtype": layer_dtype,
        "probe": data(shape, offset, 9)[0].to(dtype),
        "batches": [(x.to(dtype).split(parts), g.to(dtype).split(parts)) for x, g in batches],
    }


def reference(case: dict[str, Any], ranks: slice) -> dict[str, Tensor]:
    """One process's layer on the rows of some ranks, in float64."""
    layer = layer_for(case["shape"], **case["fields"]).double()
    batches = [
        (torch.cat(x[ranks]).double(), torch.cat(g[ranks]).double()) for x, g in case["batches"]
    ]
    return two_steps(layer, batches, case["probe"].double())


def assert_same(
    by_rank: list[dict[str, Tensor]], expected: dict[str, Tensor], rtol: float, atol: float
) -> None:
    for key, value in expected.items():
        parts = [results[key] for results in by_rank]
        if key[0] == "y" or key.startswith("dx"):
            ours = torch.cat(parts)
        elif key in ("dweight", "dbias"):
            ours = torch.stack(parts).sum(dim=0)  # DDP averages what each rank has
        else:
            ours = parts[0]
            assert all(torch.equal(part, ours) for part in parts), key
        torch.testing.assert_close(
            ours.to(value.dtype), value, rtol=rtol, atol=atol, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_equals_one_process_on_the_whole_batch(world_size: int) -> None:
    equal = [12 // world_size] * world_size
    uneven = [12 - 2 * (world_size - 1)] + [2] * (world_size - 1)
    cases = [
        case_for(shape, parts, **fields)
        for shape in SHAPES.values()
        for parts in (equal, uneven)
        for fields in ({}, {"momentum": None, "eps": 0.1}, {"affine": False, "momentum": 0.7})
    ]
    cases.append(case_for(SHAPES["2d"], equal, track_running_stats=False))
    by_rank = run_ranks(two_steps_of_shards, world_size, cases, None)
    for number, case in enumerate(cases):
        ours = [results[number] for results in by_rank]
        assert_same(ours, reference(case, slice(None)), rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_group_of_two_of_four_ranks_shares_with_its_neighbour_only() -> None:
    case = case_for(SHAPES["2d"], [3] * 4)
    by_rank = [results[0] for results in run_ranks(two_steps_of_shards, 4, [case], 2)]
    first, second = reference(case, slice(0, 2)), reference(case, slice(2, 4))
    assert_same(by_rank[:2], first, rtol=1e-9, atol=1e-11)
    assert_same(by_rank[2:], second, rtol=1e-9, atol=1e-11)
    difference = first["state running_mean"] - second["state running_mean"]
    assert difference.abs().min() > 0.05


def test_half_inputs_and_data_far_from_zero() -> None:
    equal, float32 = [6, 6], torch.float32
    # Outputs of the half types are as coarse as the types: 2^-8 and 2^-11 of the value.
    cases = [
        (case_for(SHAPES["2d"], equal, torch.bfloat16, layer_dtype=float32), 2e-2),
        (case_for(SHAPES["2d"], equal, torch.float16, layer_dtype=float32), 3e-3),
        (case_for(SHAPES["2d"], equal, float32, layer_dtype=float32), 1e-5),
        # A mean of 1e4 is known to half a step of float32 there: 5e-4, with a deviation of 1.
        (case_for(SHAPES["2d"], equal, float32, offset=1e4, layer_dtype=float32), 2e-3),
        (case_for(SHAPES["1d"], equal, float32, offset=-1e4, layer_dtype=float32), 2e-3),
    ]
    by_rank = run_ranks(two_steps_of_shards, 2, [case for case, _ in cases], None)
    for number, (case, tolerance) in enumerate(cases):
        ours = [results[number] for results in by_rank]
        assert_same(ours, reference(case, slice(None)), rtol=tolerance, atol=tolerance)
        variance = reference(case, slice(None))["state running_var"]
        torch.testing.assert_close(
            ours[0]["state running_var"].double(), variance, rtol=1e-4, atol=0
        )


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(16, 6),
        nn.BatchNorm1d(6),
        nn.LayerNorm(6),
    )


def conversion(device_type: str) -> dict[str, Any]:
    original, module = network(), network()
    module[3].eval()
    parameters = dict(module.named_parameters())
    converted = convert_sync_batch_norm(module, group_size=2, device_type=device_type)
    again: nn.Module = network()
    again.load_state_dict(converted.state_dict())
    layers = [converted.get_submodule(name) for name in ("0.1", "3")]
    pairs = zip(original.state_dict().values(), converted.state_dict().values(), strict=True)
    return {
        "types": [type(layer).__name__ for layer in layers],
        "training": [layer.training for layer in layers],
        "group sizes": [layer.process_group.size() for layer in layers],
        "names": list(converted.state_dict()) == list(original.state_dict()),
        "values": all(torch.equal(a, b) for a, b in pairs),
        "identity": all(p is parameters[n] for n, p in converted.named_parameters()),
        "same module": converted is module,
    }


def unchanged_or_refused(group_size: int | None) -> Any:
    module = network()
    try:
        return convert_sync_batch_norm(module, group_size=group_size, device_type="cpu") is module
    except ConfigError as error:
        return str(error)


def refusal_of_a_subclass() -> str:
    module = nn.Sequential(nn.Sequential(Odd(3)))
    with pytest.raises(ConfigError) as info:
        convert_sync_batch_norm(module, group_size=None, device_type="cpu")
    return str(info.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device_type", "name"), [("cpu", "CpuSyncBatchNorm"), ("cuda", "SyncBatchNorm")]
)
def test_conversion_keeps_parameters_names_and_modes(device_type: str, name: str) -> None:
    for result in run_ranks(conversion, 4, device_type):
        assert result == {
            "types": [name, name],
            "training": [True, False],
            "group sizes": [2, 2],
            "names": True,
            "values": True,
            "identity": True,
            "same module": True,
        }


def test_layers_that_share_with_nobody_stay() -> None:
    module = network()
    assert convert_sync_batch_norm(module, group_size=None, device_type="cpu") is module
    assert isinstance(module[3], nn.BatchNorm1d)
    assert run_ranks(unchanged_or_refused, 2, 1) == [True, True]


@pytest.mark.slow
def test_group_that_does_not_divide_the_ranks_is_refused() -> None:
    for size in (3, 8, 0):
        for message in run_ranks(unchanged_or_refused, 4, size):
            assert f"4 ranks cannot be split into groups of {size}" in message


def test_layer_that_does_more_is_refused_by_name() -> None:
    for message in run_ranks(refusal_of_a_subclass, 2):
        assert "the layer 0.0 is a Odd" in message
