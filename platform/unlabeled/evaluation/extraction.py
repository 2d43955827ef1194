"""The job of `unlabeled extract`: features of a whole data set, in files."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import unlabeled
from unlabeled.config.check import to_data
from unlabeled.config.schema import ExtractConfig
from unlabeled.data.loader import range_batches
from unlabeled.data.normalize import Normalize
from unlabeled.data.sources.base import Source
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.types import Batch
from unlabeled.distributed import comm
from unlabeled.engine.logs import log_to
from unlabeled.errors import ConfigError, DataError, UserError
from unlabeled.evaluation.feature_tables import require_format
from unlabeled.evaluation.feature_writer import Broken, FeatureWriter
from unlabeled.evaluation.layer_averages import LayerAverages
from unlabeled.evaluation.subject import (
    Encoder,
    frozen,
    hash_weights,
    load_encoder,
    named_dataset,
)

log = logging.getLogger(__name__)

REPORT_SECONDS = 10.0
"""How often a line says how far it is."""


def extract_features(config: ExtractConfig, device: torch.device) -> None:
    """Write the features of every image to `out`, or the part of them that is not there yet.

    Images are encoded in the order of the data set, in batches that never span two shards, so the
    files do not depend on when the job was stopped. Under DDP each rank takes a contiguous share of
    the missing shards; rank 0 writes the tables.
    """
    require_format(config.index)
    with log_to(None, terminal=comm.rank() == 0):
        encoder = load_encoder(config)
        source: Source = named_dataset(config).build(split=config.split)
        pipeline: Pipeline = encoder.transform.build()
        if len(pipeline.views) != 1:
            raise ConfigError(
                f"eval_transform emits {len(pipeline.views)} views, features take one; "
                "choose a transform such as center_crop"
            )
        layers = LayerAverages(frozen(encoder.backbone, device), config.layers)
        normalize = Normalize(encoder.normalization, device)
        side = pipeline.views[0].size
        black = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=device)
        widths = {name: rows.shape[1] for name, rows in layers(normalize(black)).items()}
        writer = FeatureWriter(
            Path(config.out).expanduser(),
            _made_of(config, encoder, source, widths),
            about={"weights": config.weights},
            tables=config.index,
        )
        missing = _agreed_missing(writer)
        own = comm.rank() * len(missing) // comm.world_size()
        end = (comm.rank() + 1) * len(missing) // comm.world_size()
        share = _Share(config, writer, source, missing[own:end])
        batches = range_batches(
            source,
            pipeline,
            [writer.images_of(number) for number in share.numbers],
            batch_size=max(1, config.batch_size // comm.world_size()),
            loader=config.loader,
            device=device,
        )
        for batch in batches:
            share.add(batch, layers(normalize(batch.views[0])))
        comm.barrier()
        if comm.rank() == 0:
            writer.finish(source)
            log.info(
                "%s: complete, %d of its %d shards are new",
                config.out,
                len(missing),
                writer.num_shards,
            )


def _made_of(
    config: ExtractConfig, encoder: Encoder, source: Source, widths: dict[str, int]
) -> dict[str, Any]:
    """All that decides the numbers and their order."""
    return {
        "version": unlabeled.__version__,
        "weights_sha256": hash_weights(encoder.backbone).hexdigest(),
        "dataset": to_data(named_dataset(config)),
        "split": config.split,
        "data": source.fingerprint(),
        "images": len(source),
        "view": to_data(encoder.transform),
        "normalization": to_data(encoder.normalization),
        "layers": widths,
        "dtype": config.dtype,
        "shard_images": config.shard_images,
        "classes": list(source.classes) if source.labels is not None else [],
    }


def _agreed_missing(writer: FeatureWriter) -> list[int]:
    """The shards that rank 0 does not find; where it must refuse, all ranks do."""
    missing: list[int] = []
    refused: UserError | None = None
    if comm.rank() == 0:
        try:
            missing = writer.open()
        except UserError as error:
            refused = error
    missing, refused = comm.all_gather_objects((missing, refused))[0]
    if refused is not None:
        raise refused
    return missing


class _Share:
    """A rank's shards: rows are gathered until the last image of a shard has come."""

    def __init__(
        self, config: ExtractConfig, writer: FeatureWriter, source: Source, numbers: list[int]
    ) -> None:
        self.numbers = numbers
        self._dtype = np.dtype(config.dtype)
        self._writer, self._source = writer, source
        self._pending: Iterator[int] = iter(numbers)
        self._rows: dict[str, list[np.ndarray]] = {}
        self._broken: list[Broken] = []
        self._progress = _Progress(sum(len(writer.images_of(number)) for number in numbers))

    def add(self, batch: Batch, features: dict[str, Tensor]) -> None:
        """The next batch with its features; the shard that it ends is written."""
        images = batch.indices.tolist()
        reasons = dict(batch.broken)
        names = [self._source.name(image) for image in images] if reasons else []
        broken = [
            (image, name, reasons[name])
            for image, name in zip(images, names, strict=False)
            if name in reasons
        ]
        self._broken += broken
        left_out = {image for image, _, _ in broken}
        kept = np.array([image not in left_out for image in images], dtype=bool)
        for layer, values in features.items():
            rows = self._narrowed(layer, values.cpu().numpy()[kept], np.array(images)[kept])
            self._rows.setdefault(layer, []).append(rows)
        self._progress.add(len(images))
        if self._writer.ends_shard(images[-1]):
            self._write()

    def _write(self) -> None:
        rows = {layer: np.concatenate(parts) for layer, parts in self._rows.items()}
        self._writer.write(next(self._pending), rows, self._broken)
        self._rows, self._broken = {}, []

    def _narrowed(self, layer: str, rows: np.ndarray, images: np.ndarray) -> np.ndarray:
        """The rows in the type that is stored; DataError where one is not finite in it."""
        with np.errstate(over="ignore"):
            narrow = rows.astype(self._dtype)
        bad = ~np.isfinite(narrow).all(axis=1)
        if bad.any():
            name = self._source.name(int(images[bad.argmax()]))
            too_large = np.isfinite(rows[bad.argmax()]).all()
            raise DataError(
                f"layer {layer} of {name} is "
                + (
                    "too large for float16; take dtype=float32"
                    if too_large
                    else "NaN or infinite: the weights have diverged"
                )
            )
        return narrow


class _Progress:
    """A line now and then: images done, images per second, time left."""

    def __init__(self, images: int) -> None:
        self._images, self._done = images, 0
        self._started = self._said = time.monotonic()
        self._whose = f" of rank 0 of {comm.world_size()}" if comm.world_size() > 1 else ""

    def add(self, images: int) -> None:
        """So many more; the last ones are always told."""
        self._done += images
        now = time.monotonic()
        if now - self._said >= REPORT_SECONDS or self._done == self._images:
            self._said = now
            rate = self._done / max(now - self._started, 1e-9)
            log.info(
                "%d of %d images%s, %.0f images/s, %.0f s left",
                self._done,
                self._images,
                self._whose,
                rate,
                (self._images - self._done) / rate,
            )
