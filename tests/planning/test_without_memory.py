"""Tensors that hold nothing behave like those that do."""

from __future__ import annotations

import resource

import pytest
import torch
from torch import nn

from unlabeled.errors import ConfigError
from unlabeled.planning.without_memory import empty_tensors, without_memory


def test_a_step_of_a_terabyte_takes_no_memory() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(10**6, 10**5), nn.ReLU(), nn.Linear(10**5, 10**3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with without_memory():
        empty_tensors(network)
        network(torch.empty(64, 10**6)).sum().backward()
        first = network[0].weight
        assert first.grad is not None and first.grad.shape == (10**5, 10**6)
    assert sum(p.numel() for p in network.parameters()) > 10**11  # 400 GB, and as many gradients
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in kB
    assert after - before < 500_000


def test_what_was_one_tensor_is_one_again_and_types_can_be_chosen() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    network[1].weight = network[0].weight
    network[1].bias.requires_grad_(False)
    with without_memory():
        empty_tensors(network, lambda p: torch.float16 if p.ndim > 1 else p.dtype)
        assert network[1].weight is network[0].weight
        kinds = {name: p.dtype for name, p in network.named_parameters()}
        assert kinds["0.weight"] == torch.float16 and kinds["0.bias"] == torch.float32
        assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["1.bias"]
        assert network[2].running_mean.shape == (4,)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert network[1](torch.empty(2, 4)).dtype == torch.bfloat16


def test_numbers_are_one_or_true_places_are_zero_and_masks_choose_all() -> None:
    with without_memory():
        tensor = torch.empty(5, 3, requires_grad=True)
        assert tensor.sum().item() == 1 and int(tensor.sum()) == 1 and bool((tensor > 0).all())
        assert int(torch.empty(3, dtype=torch.int64).sum()) == 0
        chosen = tensor[:, tensor[0] > 0]
        assert chosen.shape == (5, 3)
        chosen.sum().backward()
        assert tensor.grad is not None and tensor.grad.shape == (5, 3)
        assert tensor[tensor > 0].shape == (15,)
        assert (tensor > 0).nonzero().shape == (15, 2)


def test_sizes_that_were_read_are_equal_parts_and_others_are_kept() -> None:
    with without_memory():
        rows = torch.empty(10, 2, requires_grad=True)
        counts = torch.bincount(torch.empty(10, dtype=torch.int64), minlength=4).tolist()
        parts = torch.split(rows, counts)
        assert [len(part) for part in parts] == [2, 3, 2, 3]
        sum(part.sum() for part in parts).backward()
        assert rows.grad is not None and rows.grad.shape == (10, 2)
        assert [len(part) for part in torch.split(rows, [9, 1])] == [9, 1]


def test_what_needs_values_is_said() -> None:
    with pytest.raises(ConfigError, match=r"cannot be planned: .*unique"), without_memory():
        torch.empty(10).unique()
