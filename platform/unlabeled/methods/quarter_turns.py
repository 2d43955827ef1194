"""Images turned by multiples of 90 degrees: exact, as pixels only change their places."""

from __future__ import annotations

import torch
from torch import Tensor

TURNS = 4
"""Quarter turns that differ: by 0, 90, 180 and 270 degrees."""


def quarter_turn(images: Tensor, turns: int) -> Tensor:
    """Images [B, C, h, w] turned counterclockwise by `turns` x 90 degrees.

    The result is [B, C, h, w] for even `turns` and [B, C, w, h] for odd ones; four turns are none.
    """
    return torch.rot90(images, turns, dims=(2, 3))


def all_turns(images: Tensor) -> Tensor:
    """Every image [B, C, s, s] in its four turns, turn after turn: [4 B, C, s, s].

    Row t*B + n is image n turned counterclockwise by t x 90 degrees.
    """
    turned = images.repeat(TURNS, 1, 1, 1)  # in the memory format of the images
    for turns in range(1, TURNS):
        turned[turns * len(images) : (turns + 1) * len(images)] = quarter_turn(images, turns)
    return turned


def each_turned(images: Tensor, turns: Tensor) -> Tensor:
    """Image n of [B, C, s, s] turned counterclockwise by turns[n] x 90 degrees; turns [B] int64."""
    turned = images.clone()
    for number in range(1, TURNS):
        chosen = turns % TURNS == number
        turned[chosen] = quarter_turn(images[chosen], number)
    return turned
