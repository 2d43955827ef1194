"""The accelerator's half of the device backend: what is left of the views' steps, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from unlabeled.data.pixels.box_blur import gaussian_box
from unlabeled.data.pixels.device_changes import CHANGES
from unlabeled.data.pixels.table import CODES

NAMES = {code: name for name, code in CODES.items()}


class DeviceSteps:
    """Each image's own program of steps, run on a batch [B, 3, s, s] where it lies.

    An image comes out as it would alone. All steps but hue and blur are bit-equal to the reference,
    those two in more than 99.5 % of the values. Every result is a chain of single IEEE operations,
    so CPUs and GPUs agree to the last bit.
    """

    def __call__(self, images: Tensor, table: Tensor) -> Tensor:
        """Uint8 [B, 3, s, s] of uint8 [B, 3, s, s] and steps [B, T, 2] of (code, number).

        The table is read on the host: keep it there, for copying it back would wait for the device.
        What the device needs of it goes over in two small transfers, and nothing returns.
        `images` is not changed; it is returned itself where there is nothing to do.
        """
        rounds = list(_rounds(table.cpu().numpy()))
        if not rounds:
            return images
        rows = _upload(np.concatenate([each.rows for each in rounds]), images)
        numbers = _upload(np.concatenate([each.numbers.ravel() for each in rounds]), images)
        changed = images.clone()
        row, number = 0, 0
        for each in rounds:
            chosen = rows[row : row + len(each.rows)]
            given = numbers[number : number + each.numbers.size].view(len(chosen), 1, 1, -1)
            some = CHANGES[each.name](changed.index_select(0, chosen), given)
            changed.index_copy_(0, chosen, some)
            row, number = row + len(each.rows), number + each.numbers.size
        return changed

    def finish(self, views: Sequence[Tensor], tables: Sequence[Tensor]) -> list[Tensor]:
        """Every view [B, 3, s, s] after its steps [B, T, 2]; adjacent equal sizes run as one batch.

        What a group of steps costs on a GPU is mostly its launches, however many images it has.
        """
        finished: list[Tensor] = []
        for _, group in groupby(zip(views, tables, strict=True), key=lambda pair: pair[0].shape):
            alike = list(group)
            images = torch.cat([view for view, _ in alike])
            changed = self(images, torch.cat([table for _, table in alike]))
            finished += changed.chunk(len(alike))
        return finished


@dataclass(frozen=True)
class _Round:
    """One kind of step for some of the images: numbers float32 [n, k] for rows int64 [n]."""

    name: str
    rows: np.ndarray
    numbers: np.ndarray


def _upload(array: np.ndarray, images: Tensor) -> Tensor:
    tensor = torch.from_numpy(array)
    if images.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(images.device, non_blocking=True)


def _rounds(table: np.ndarray) -> Iterator[_Round]:
    """Groups of equal steps that respect each image's order.

    The next group is the step that most images wait for, and images with more steps left count
    more: 18 groups for 512 images of SwAV's recipe, whose columns hold 31 kinds together.
    """
    nothing = np.zeros((len(table), 1, 2))
    order = np.argsort(table[:, :, 0] == 0, axis=1, kind="stable")  # zeros to the end
    steps = np.concatenate([np.take_along_axis(table, order[:, :, None], axis=1), nothing], axis=1)
    lengths = (steps[:, :, 0] != 0).sum(axis=1)
    images, places = np.arange(len(steps)), np.zeros(len(steps), np.int64)
    while True:
        following = steps[images, places]
        weights = 4.0 ** (lengths - places)
        counts = np.bincount(following[:, 0].astype(np.int64), weights, minlength=1)
        counts[0] = 0
        code = int(counts.argmax())
        if counts[code] == 0:
            return
        rows = np.flatnonzero(following[:, 0] == code)
        yield _Round(NAMES[code], rows, _parameters(NAMES[code], following[rows, 1]))
        places[rows] += 1


def _parameters(name: str, numbers: np.ndarray) -> np.ndarray:
    """What the step's arithmetic needs, float32 [n, k]: k = 1, but a blur's box filter [n, k]."""
    if name == "hue":
        numbers = np.array([int(shift * 255) % 256 for shift in numbers.tolist()])
    if name != "gaussian_blur":
        return numbers.astype(np.float32)[:, None]
    boxes = [gaussian_box(sigma) for sigma in numbers.tolist()]
    longest = max(len(box) for box in boxes)
    padded = [np.pad(box, (longest - len(box)) // 2) for box in boxes]
    return np.stack(padded).astype(np.float32)
