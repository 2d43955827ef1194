"""What a training batch holds: images by step, and replacements for those that are broken."""

from __future__ import annotations

import numpy as np

from unlabeled.data.decode import BrokenImage
from unlabeled.data.loader.rows import Broken, Item, RowBatches
from unlabeled.data.loader.slots import BatchArrays
from unlabeled.data.randomness import SampleKey, mix
from unlabeled.data.sampling.base import Sampler
from unlabeled.data.sources.base import Source
from unlabeled.data.transforms.base import Pipeline
from unlabeled.errors import ConfigError, DataError

# Replacements tried for one broken image: where every tenth is broken, all fail once in 10^17.
MAX_ATTEMPTS = 16


class StepBatches(RowBatches):
    """A rank's batches, addressed by (global step, micro step).

    Step t is step s = t mod steps_per_epoch of epoch e = t // steps_per_epoch, and covers the
    positions [s * batch_size, (s + 1) * batch_size) of the epoch's order. They are split into
    `micro_steps` equal parts, and each of these into one contiguous share per rank.

    A broken image is replaced by another one, a pure function of (seed, epoch, index, attempt);
    Batch.indices and labels are those of the replacement, Batch.broken names what was replaced, in
    the order of the rows. `augment_epoch` takes the place of the epoch in the views' randomness
    (not in the order). A sample that comes several times in an epoch has other views each time.
    With `fill_last` the last batch of an epoch, where images are too few for
    it, goes on with the first ones of the same order. ConfigError if batch_size does not divide
    into the shares; DataError if an epoch does not fit the data set, or if MAX_ATTEMPTS
    replacements in a row are broken as well.
    """

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        sampler: Sampler,
        *,
        seed: int,
        batch_size: int,
        micro_steps: int,
        rank: int,
        world_size: int,
        steps_per_epoch: int,
        augment_epoch: int | None = None,
        fill_last: bool = False,
    ) -> None:
        if batch_size < 1 or batch_size % (micro_steps * world_size):
            raise ConfigError(
                f"batch_size: {batch_size} does not divide into {micro_steps} micro steps x "
                f"{world_size} ranks; give a multiple of {micro_steps * world_size}"
            )
        most = len(source) + (batch_size - 1 if fill_last else 0)
        if steps_per_epoch < 1 or steps_per_epoch * batch_size > most:
            raise DataError(
                f"{steps_per_epoch} steps of batch_size={batch_size} do not fit an epoch of "
                f"{len(source)} images; lower batch_size"
            )
        super().__init__(source, pipeline, rows=batch_size // (micro_steps * world_size))
        self.sampler, self.seed, self.augment_epoch = sampler, seed, augment_epoch
        self.batch_size, self.micro_steps = batch_size, micro_steps
        self.rank, self.world_size = rank, world_size
        self.steps_per_epoch = steps_per_epoch

    def wanted(self, item: Item) -> np.ndarray:
        epoch, start = self._start(item)
        parts, missing = [], self.rows
        while missing:  # once, but where `fill_last` begins the order again
            first = (start + self.rows - missing) % len(self.source)
            last = min(first + missing, len(self.source))
            parts.append(self.sampler.indices(epoch, first, last))
            missing -= last - first
        return np.concatenate(parts)

    def fill(self, item: Item, arrays: BatchArrays, row: int) -> Broken:
        epoch, start = self._start(item)
        used, image, broken = self._readable(epoch, int(arrays.indices[row]))
        arrays.indices[row] = used
        augment_epoch = epoch if self.augment_epoch is None else self.augment_epoch
        repeat = self.sampler.repeat(epoch, (start + row) % len(self.source))
        key = SampleKey(self.seed, augment_epoch, used + repeat * len(self.source))
        self.pipeline.write(image, key, *arrays.row(row))
        return broken

    def _start(self, item: Item) -> tuple[int, int]:
        """The epoch, and the position of the rank's first row in its order."""
        step, micro_step = item
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        place = micro_step * self.world_size + self.rank
        return epoch, step_in_epoch * self.batch_size + place * self.rows

    def _readable(self, epoch: int, index: int) -> tuple[int, np.ndarray, Broken]:
        """Index and pixels of the image, or of the first replacement that can be decoded."""
        used = index
        broken: list[tuple[str, str]] = []
        for attempt in range(1, MAX_ATTEMPTS + 2):
            try:
                return used, self.source.image(used), tuple(broken)
            except BrokenImage as error:
                broken.append((self.source.name(used), str(error)))
            used = self.source.replacement(index, mix(self.seed, epoch, index, attempt))
        name, reason = broken[-1]
        raise DataError(
            f"{MAX_ATTEMPTS + 1} images in a row cannot be decoded, the last one {name}: {reason}; "
            "check that the files are images and can be read from this machine"
        )
