"""Pictures on their way into a detector: decoded, with what they show, flipped, in order."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from unlabeled.data.decode import BrokenImage
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.data.sources.base import Source
from unlabeled.distributed import comm
from unlabeled.errors import DataError
from unlabeled.transfer.detection_objects import Objects

DRAWS = 8
"""Random numbers that a training view may use."""

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Picture:
    """An image with what it shows."""

    image: Tensor
    """uint8 [3, h, w]."""
    boxes: Tensor
    """float32 [n, 4]: left, top, right, bottom in pixels of this image."""
    labels: Tensor
    """int64 [n]."""
    masks: Tensor | None = None
    """uint8 [n, h, w], 1 on the object."""

    def to(self, device: torch.device) -> Picture:
        """The same on a device."""
        masks = None if self.masks is None else self.masks.to(device)
        return Picture(self.image.to(device), self.boxes.to(device), self.labels.to(device), masks)


View = Callable[[Picture, np.ndarray], Picture]
"""What training sees of a picture, as a function of `DRAWS` numbers in [0, 1)."""


def flipped(picture: Picture, draws: np.ndarray) -> Picture:
    """The picture, or its mirror image where the first number is below 1/2."""
    if draws[0] >= 0.5:
        return picture
    left, top, right, bottom = picture.boxes.unbind(1)
    width = picture.image.shape[2]
    return replace(
        picture,
        image=picture.image.flip(2),
        boxes=torch.stack([width - right, top, width - left, bottom], dim=1),
        masks=None if picture.masks is None else picture.masks.flip(2),
    )


class TrainingPictures:
    """Batches of random views, each picture once in a pass, as a function of (seed, step).

    `chosen` are the places of the pictures that are trained on. A remainder of a pass that fills no
    batch is left out; fewer pictures than a batch are repeated within one.
    """

    def __init__(
        self,
        images: Source,
        objects: Sequence[Objects],
        view: View,
        *,
        chosen: Sequence[int],
        masks: bool,
    ) -> None:
        if not chosen:
            raise DataError("root: no training picture shows an object")
        self._images, self._objects, self._view = images, objects, view
        self._chosen, self._masks = np.asarray(chosen), masks

    def batch_length(self, batch_size: int) -> int:
        """Steps of one pass."""
        return max(1, len(self._chosen) // batch_size)

    def batches(
        self, steps: range, *, batch_size: int, seed: int, workers: int
    ) -> Generator[list[Picture], None, None]:
        """This rank's share of these steps' batches; batch_size counts over all ranks."""
        ranks, rank = comm.world_size(), comm.rank()
        length = self.batch_length(batch_size)

        def load(item: tuple[int, int]) -> Picture:
            epoch, place = item
            index = int(self._chosen[place])
            draws = uniforms(SampleKey(seed, epoch, index), 0, DRAWS)
            return self._view(self._load(index), draws)

        def items() -> Generator[tuple[int, int], None, None]:
            for step in steps:
                epoch, number = divmod(step, length)
                order = Permutation(len(self._chosen), seed, epoch)
                positions = np.arange(number * batch_size, (number + 1) * batch_size)
                for place in order(positions % len(self._chosen))[rank::ranks].tolist():
                    yield epoch, place

        share = batch_size // ranks
        loaded = ahead(load, items(), workers=workers, count=4 * share)
        try:
            for _ in steps:
                yield [next(loaded) for _ in range(share)]
        finally:
            loaded.close()

    def _load(self, index: int) -> Picture:
        objects = self._objects[index]
        image = decoded(self._images, index)
        return Picture(
            image,
            torch.from_numpy(objects.boxes),
            torch.from_numpy(objects.labels),
            outlined(objects, *image.shape[1:]) if self._masks else None,
        )


def outlined(objects: Objects, height: int, width: int) -> Tensor:
    """The masks of a picture's objects, uint8 [n, height, width]."""
    from unlabeled.transfer.coco_tools import drawn

    masks = [drawn(outline, height, width) for outline in json.loads(objects.outlines)]
    return torch.from_numpy(np.array(masks, dtype=np.uint8).reshape(-1, height, width))


def decoded(images: Source, index: int) -> Tensor:
    """uint8 [3, h, w]; DataError that names an image which cannot be decoded."""
    try:
        pixels = images.image(index)
    except BrokenImage as error:
        raise DataError(
            f"root: {images.name(index)} cannot be decoded ({error}); unpack it again"
        ) from error
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def ahead(
    load: Callable[[Item], Loaded], items: Iterable[Item], *, workers: int, count: int
) -> Generator[Loaded, None, None]:
    """load(item) of every item in order; threads work on up to `count` items ahead."""
    if workers == 0:
        yield from map(load, items)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Loaded]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(load, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
