"""Buffers that every rank fills with rows of its own, and how other ranks would divide them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RankRows:
    """How the rows of a buffer, along dimension `axis`, are divided among the ranks.

    Rows come in blocks of `block` rows, and every block is divided as a batch is: into one
    contiguous share per rank. Of W ranks, rank r therefore holds, of all the rows,
    own_r[i * share + j] = all[i * block + r * share + j] for j < share = block / W.
    `block` counts the rows of all ranks and does not depend on how many they are; for a buffer that
    is pushed onto or overwritten once a forward pass it is the micro-batch of all ranks.
    """

    axis: int
    block: int


def redistribute(
    buffer_of: Callable[[int], Tensor], rows: RankRows, *, written_by: int, rank: int, ranks: int
) -> Tensor:
    """The buffer of `rank` among `ranks`, made of those that `written_by` ranks have left.

    buffer_of: gives the buffer of one former rank, and is asked for those alone that hold rows of
    this rank; nothing else of them is read. Both numbers of ranks divide `rows.block`. Every row
    comes back as it was, bit for bit, in the same block.
    """
    former, share = rows.block // written_by, rows.block // ranks
    first, stop = rank * share, (rank + 1) * share  # of every block
    pieces = []
    for source in range(first // former, (stop - 1) // former + 1):
        buffer = buffer_of(source)
        blocks, rest = divmod(buffer.shape[rows.axis], former)
        assert not rest, f"{buffer.shape[rows.axis]} rows are not whole shares of {former}"
        start, end = max(first - source * former, 0), min(stop - source * former, former)
        before, after = buffer.shape[: rows.axis], buffer.shape[rows.axis + 1 :]
        by_block = buffer.view(*before, blocks, former, *after)  # a view: nothing is read yet
        pieces.append(by_block.narrow(rows.axis + 1, start, end - start))
    return torch.cat(pieces, dim=rows.axis + 1).flatten(rows.axis, rows.axis + 1)
