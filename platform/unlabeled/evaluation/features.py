"""Frozen features of a whole data set, computed once by all ranks and known to each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unlabeled.config.schema import LoaderConfig
from unlabeled.data.loader import eval_batches
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.roots import nothing_decoded
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.types import Batch
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError, DataError

log = logging.getLogger(__name__)

# Rows a rank sends at once: 8192 x 2048 float32 = 64 MB.
GATHER_ROWS = 8192


@dataclass(frozen=True)
class FeatureSet:
    """Features of the readable images of a data set, in its order.

    features: float32 [N, D]; indices: int64 [N], each row's place in the data set; labels: int64
    [N] or None; all in host memory.
    """

    features: Tensor
    indices: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.features)

    def names(self, source: Source) -> list[str]:
        """What each row is called in the data set it was extracted from."""
        return [source.name(index) for index in self.indices.tolist()]


@torch.no_grad()
def extract(
    encode: Callable[[Tensor], Tensor],
    source: Source,
    pipeline: Pipeline,
    *,
    normalize: Callable[[Tensor], Tensor],
    device: torch.device,
    batch_size: int,
    loader: LoaderConfig,
    channels_last: bool = False,
) -> FeatureSet:
    """encode(normalize(view)) of every image, without gradients.

    `encode` belongs to a model that the caller has put into evaluation mode; `batch_size` counts
    over all ranks. Images that cannot be decoded are left out and logged. DataError if none can be
    decoded or a feature is not finite; ConfigError unless the pipeline emits one view.
    Under DDP each rank encodes a contiguous share and receives all N rows, in order.
    """
    if len(pipeline.views) != 1:
        raise ConfigError(
            f"eval_transform emits {len(pipeline.views)} views, evaluation takes one; "
            "choose a transform such as center_crop"
        )
    shares, size = comm.world_size(), pipeline.views[0].size
    largest, rows = -(-len(source) // shares), max(1, batch_size // shares)
    batches = eval_batches(
        source,
        pipeline,
        batch_size=rows,
        rank=comm.rank(),
        world_size=shares,
        loader=loader,
        device=device,
    )
    share = _Share(capacity=largest)
    calls = 0
    for batch in batches:
        images = normalize(batch.views[0])  # [B, 3, h, w]
        if channels_last:
            images = images.to(memory_format=torch.channels_last)
        share.add(encode(images), batch, _readable(batch, source))
        calls += 1
    # A sharded model gathers its parameters in every call: all ranks make as many as the busiest.
    for _ in range(calls, -(-largest // rows)):
        encode(torch.zeros(1, 3, size, size, device=device))
    return _assemble(share, source, device)


class _Share:
    """One rank's rows, written in place as they come, so that they exist once."""

    def __init__(self, capacity: int) -> None:
        self._features = torch.empty(capacity, 0)
        self._indices = torch.empty(capacity, dtype=torch.int64)
        self._rows = 0
        self.broken: list[tuple[str, str]] = []

    def add(self, features: Tensor, batch: Batch, readable: Tensor) -> None:
        """Append the readable rows of a batch's features [B, D]."""
        if self._features.shape[1] == 0:
            self._features = torch.empty(len(self._features), features.shape[1])
        stop = self._rows + int(readable.sum())
        self._features[self._rows : stop] = features.float().cpu()[readable]
        self._indices[self._rows : stop] = batch.indices.cpu()[readable]
        self._rows = stop
        self.broken.extend(batch.broken)

    @property
    def features(self) -> Tensor:
        """float32 [rows, D]; D = 0 while nothing was added."""
        return self._features[: self._rows]

    @property
    def indices(self) -> Tensor:
        """int64 [rows]."""
        return self._indices[: self._rows]


def _readable(batch: Batch, source: Source) -> Tensor:
    """Which rows of a batch show their own image: bool [B], on the host."""
    readable = torch.ones(len(batch), dtype=torch.bool)
    broken = {name for name, _ in batch.broken}
    if broken:
        for row, index in enumerate(batch.indices.tolist()):
            readable[row] = source.name(index) not in broken
    return readable


def _assemble(share: _Share, source: Source, device: torch.device) -> FeatureSet:
    """The rows of all ranks, checked and labelled."""
    broken = [item for items in comm.all_gather_objects(share.broken) for item in items]
    if broken:
        name, reason = broken[0]
        log.warning(
            "%d of %d images left out: cannot be decoded, first %s (%s)",
            len(broken),
            len(source),
            name,
            reason,
        )
    features = gather_rows(share.features, device)
    indices = gather_rows(share.indices.unsqueeze(1), device).squeeze(1)
    if not len(features):
        raise nothing_decoded(source, *broken[0]) if broken else DataError("there are no images")
    finite = torch.isfinite(features).all(dim=1)
    if not finite.all():
        worst = source.name(int(indices[int((~finite).nonzero()[0])]))
        raise DataError(
            f"{int((~finite).sum())} of {len(features)} features are NaN or infinite, the first of "
            f"{worst}: the weights have diverged or the precision is too low for them"
        )
    labels = None if source.labels is None else torch.from_numpy(source.labels[indices.numpy()])
    return FeatureSet(features, indices, labels)


def gather_rows(rows: Tensor, device: torch.device) -> Tensor:
    """Rows of all ranks in rank order, on the host; shares may differ in length, also be empty."""
    if comm.world_size() == 1:
        return rows
    shapes = comm.all_gather_objects(tuple(rows.shape))
    counts, width = [count for count, _ in shapes], max(dim for _, dim in shapes)
    offsets = [sum(counts[:rank]) for rank in range(len(counts))]
    gathered = torch.empty(sum(counts), width, dtype=rows.dtype)
    for start in range(0, max(counts), GATHER_ROWS):
        height = min(GATHER_ROWS, max(counts) - start)
        block = torch.zeros(height, width, dtype=rows.dtype, device=device)
        own = rows[start : start + height]
        block[: len(own), : own.shape[1]] = own.to(device)
        parts = torch.split(comm.all_gather(block).cpu(), height)  # W x [height, D]
        for part, count, offset in zip(parts, counts, offsets, strict=True):
            stop = min(start + height, count)
            if start < stop:
                gathered[offset + start : offset + stop] = part[: stop - start]
    return gathered
