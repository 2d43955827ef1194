from __future__ import annotations

import torch

from unlabeled.distributed import comm
from unlabeled.distributed.pretended import pretended_ranks
from unlabeled.distributed.traffic import Collective, counted
from unlabeled.planning.without_memory import without_memory


def test_the_first_of_many_ranks_is_alone_and_says_what_it_would() -> None:
    with pretended_ranks(512):
        assert (comm.rank(), comm.world_size()) == (0, 512)
        with without_memory(), counted() as said:
            assert comm.all_reduce_sum(torch.empty(3000)).shape == (3000,)
            assert comm.all_gather(torch.empty(10, 4)).shape == (5120, 4)
        comm.barrier()
    own = ("unlabeled.distributed.comm",)
    assert said == [
        Collective("allreduce_", 3000, 12_000, own),
        Collective("allgather_", 40, 160, own),
    ]
    assert (comm.world_size(), comm.is_initialized()) == (1, False)


def test_one_rank_pretends_nothing() -> None:
    with pretended_ranks(1):
        assert not comm.is_initialized()
