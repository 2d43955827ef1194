"""MoCo's queue: the keys of past batches, first in, first out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.errors import ConfigError


class KeyQueue(nn.Module):
    """The newest keys of all ranks: [length, D] unit rows in float32, the same on every rank.

    `wanted` rows are cut down to whole blocks of `block` rows, which are pushed together; the
    oldest block is overwritten. Full from the start: of random unit vectors, as in the official
    code. ConfigError where not even one block fits.
    """

    keys: Tensor
    next_row: Tensor

    def __init__(self, *, wanted: int, block: int, dim: int) -> None:
        super().__init__()
        length = wanted // block * block
        if length == 0:
            raise ConfigError(
                f"method.queue_samples: {wanted} keys are less than the {block} that a micro-batch "
                f"of all processes brings; give {block} or more, or a smaller batch_size"
            )
        self.register_buffer("keys", F.normalize(torch.randn(length, dim), dim=1))
        self.register_buffer("next_row", torch.zeros((), dtype=torch.int64))

    @property
    def length(self) -> int:
        """Rows."""
        return len(self.keys)

    def push(self, rows: Tensor) -> None:
        """Overwrite the oldest block; every rank gives the same rows [block, D], in one order."""
        start = int(self.next_row)
        self.keys[start : start + len(rows)] = rows
        self.next_row.fill_((start + len(rows)) % self.length)
