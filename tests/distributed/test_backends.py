"""What is said to be available can be used."""

from __future__ import annotations

from tests_support.ranks import run_ranks
from unlabeled.distributed.backends import available_backends
from unlabeled.distributed.comm import world_size


def test_both_backends_are_reported() -> None:
    assert set(available_backends()) == {"gloo", "nccl"}


def test_gloo_carries_a_group_where_it_is_available() -> None:
    assert available_backends()["gloo"]
    assert run_ranks(world_size, 2) == [2, 2]
