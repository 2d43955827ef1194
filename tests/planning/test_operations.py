"""Operations and the bytes that they move, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests_support.ranks import run_ranks
from unlabeled.distributed.sharding import device_mesh, divide_parameters
from unlabeled.planning.operations import Operation, Operations


def multiply_adds(groups: int, stride: int) -> int:
    """Of a 3x3 convolution of 8 to 12 channels on 10x10 images, two of them, one by one."""
    side = 10 // stride
    return 2 * side**2 * 12 * (8 // groups) * 9


def convolved(groups: int, stride: int, images: Tensor) -> int:
    weight = torch.zeros(12, 8 // groups, 3, 3, requires_grad=True)
    with Operations() as operations:
        result = functional.conv2d(images, weight, stride=stride, padding=1, groups=groups)
        result.sum().backward()
    return operations.flops


def test_every_multiply_add_of_a_convolution_has_one_for_each_of_its_gradients() -> None:
    plain, differentiable = torch.zeros(2, 8, 10, 10), torch.zeros(2, 8, 10, 10, requires_grad=True)
    for groups in (1, 4):
        for stride in (1, 2):
            own = multiply_adds(groups, stride)
            assert convolved(groups, stride, plain) == 2 * 2 * own
            assert convolved(groups, stride, differentiable) == 2 * 3 * own


def test_matrix_products_count_and_sums_do_not() -> None:
    with Operations() as operations:
        product = torch.zeros(3, 4) @ torch.zeros(4, 5)
        torch.zeros(7, 3, 4) @ torch.zeros(7, 4, 5)
        (product + 1).exp().sum()
    assert operations.flops == 2 * 3 * 4 * 5 * (1 + 7)


def test_bytes_are_those_that_are_read_made_and_changed() -> None:
    floats, halves = torch.zeros(6, 5), torch.zeros(5, 7, dtype=torch.float16)
    with Operations() as operations:
        torch.empty(1000)
        product = floats.t().t() @ halves.float()
        product.add_(1.0)
        product[:2].flatten()
        torch.var_mean(product, 0)
    assert operations.done == [
        Operation(0, 35 * 2 + 35 * 4, torch.float32),  # the conversion
        Operation(2 * 6 * 5 * 7, 4 * (30 + 35 + 42), torch.float32),
        Operation(0, 4 * (42 + 42), torch.float32),  # read and written, in place
        Operation(0, 4 * (42 + 7 + 7), torch.float32),
    ]


def test_the_type_is_that_of_the_result() -> None:
    with torch.autocast("cpu", torch.bfloat16), Operations() as operations:
        torch.zeros(3, 4) @ torch.zeros(4, 5)
    [product] = [operation for operation in operations.done if operation.flops]
    assert product == Operation(2 * 3 * 4 * 5, 2 * (12 + 20 + 15), torch.bfloat16)


def work_of_a_rank() -> list[Operation]:
    layer = torch.nn.Linear(8, 6, bias=False)
    divide_parameters(layer, {layer.weight}, device_mesh(torch.device("cpu")))
    inputs = torch.zeros(3, 8)
    with Operations() as operations:
        inputs @ layer.weight.to_local().t()  # type: ignore[operator]
        layer.weight + 1
    return operations.done


@pytest.mark.slow
def test_of_divided_rows_this_ranks_count() -> None:
    for found in run_ranks(work_of_a_rank, 2):
        assert [operation.flops for operation in found] == [2 * 3 * 8 * 3, 0]
        assert [operation.bytes for operation in found] == [4 * (24 + 24 + 9), 4 * (24 + 24)]
