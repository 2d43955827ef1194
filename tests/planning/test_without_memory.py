"""Tensors that hold nothing behave like those that do."""

from __future__ import annotations

import resource

import torch
from torch import nn

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


def test_every_number_is_one_and_masks_choose_all() -> None:
    with without_memory():
        tensor = torch.empty(5, 3, requires_grad=True)
        assert tensor.sum().item() == 1 and int(tensor.sum()) == 1 and bool((tensor > 0).all())
        chosen = tensor[:, tensor[0] > 0]
        assert chosen.shape == (5, 3)
        chosen.sum().backward()
        assert tensor.grad is not None and tensor.grad.shape == (5, 3)
        assert tensor[tensor > 0].shape == (15,)
        assert (tensor > 0).nonzero().shape == (15, 2)
