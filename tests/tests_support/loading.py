"""What tests of the loader load: small images, views that tell everything apart, short settings."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import cache
from multiprocessing.process import BaseProcess
from typing import Any, Literal

import numpy as np
import torch
import yaml

from unlabeled.config.check import build_config
from unlabeled.config.location import config_dir
from unlabeled.config.schema import LoaderConfig
from unlabeled.data.loader import StepBatches, batches
from unlabeled.data.randomness import SampleKey
from unlabeled.data.sampling.shuffled import Shuffled
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.synthetic import Synthetic
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.types import Batch, ViewSpec

Kind = Literal["auto", "threads", "processes"]

CPU = torch.device("cpu")
SAMPLES = 50


def loading(workers: int = 0, kind: Kind = "auto", prefetch: int = 2) -> LoaderConfig:
    """The standard settings, but in the test's own thread unless it asks for more."""
    return replace(_standard(), kind=kind, workers=workers, prefetch_batches=prefetch)


@cache
def _standard() -> LoaderConfig:
    text = (config_dir() / "pretrain.yaml").read_text(encoding="utf-8")
    return build_config(LoaderConfig, yaml.safe_load(text)["loader"])


def worker_processes() -> list[BaseProcess]:
    """The loader's living processes, without those that `run_ranks` keeps for all tests."""
    return [p for p in multiprocessing.active_children() if p.name.startswith("loader worker")]


class Painted(Pipeline):
    """Two views and a smaller one, with tables: other numbers for every image, key and view."""

    def __init__(self, *, releases_gil: bool = False) -> None:
        self.views = (ViewSpec(12, "global"), ViewSpec(12, "global"), ViewSpec(8, "local"))
        self.deferred_steps = 2
        self.releases_gil = releases_gil

    def write(
        self,
        image: np.ndarray,
        key: SampleKey,
        views: Sequence[np.ndarray],
        deferred: Sequence[np.ndarray],
    ) -> None:
        for number, (view, table) in enumerate(zip(views, deferred, strict=True)):
            # The pass before training is epoch -1, and seeds are not negative.
            seed = [key.seed, key.epoch + 1, key.sample, number, int(image.sum())]
            drawn = np.random.default_rng(seed)
            view[...] = drawn.integers(0, 256, view.shape, dtype=np.uint8)
            table[...] = drawn.random(table.shape)


class Slow(Source):
    """Black images that take a while; `seconds` may depend on the index."""

    def __len__(self) -> int:
        return 1000

    def seconds(self, index: int) -> float:
        return 0.01

    def image(self, index: int) -> np.ndarray:
        time.sleep(self.seconds(index))
        return np.zeros((16, 16, 3), dtype=np.uint8)

    def name(self, index: int) -> str:
        return str(index)


def synthetic(num_samples: int = SAMPLES) -> Synthetic:
    """Labelled images of 16 x 16."""
    return Synthetic(Synthetic.Config(num_samples=num_samples, image_size=16), split="train")


def steps_of(source: Source, pipeline: Pipeline | None = None, **fields: Any) -> StepBatches:
    """Batches of 12, 4 steps an epoch, on one rank; `fields` say otherwise."""
    settings = {
        **{"seed": 5, "batch_size": 12, "micro_steps": 1, "rank": 0, "world_size": 1},
        **{"steps_per_epoch": 4},
        **fields,
    }
    sampler = Shuffled(Shuffled.Config(), num_samples=len(source), seed=settings["seed"])
    return StepBatches(source, pipeline or Painted(), sampler, **settings)


def stream(
    dataset: StepBatches,
    steps: range,
    workers: int = 0,
    kind: Kind = "auto",
    prefetch: int = 2,
) -> Generator[Batch, None, None]:
    """The batches of these steps, lent one after the other."""
    return batches(dataset, steps, loader=loading(workers, kind, prefetch), device=CPU)


def content(batch: Batch) -> tuple[object, ...]:
    """All that a batch says, as values of its own that can be compared."""
    labels = None if batch.labels is None else batch.labels.tolist()
    views = tuple(view.numpy().tobytes() for view in batch.views)
    deferred = tuple(table.numpy().tobytes() for table in batch.deferred)
    return views, tuple(batch.indices.tolist()), labels, batch.broken, deferred


def contents(
    dataset: StepBatches,
    steps: range,
    workers: int = 0,
    kind: Kind = "auto",
    prefetch: int = 2,
) -> list[tuple[object, ...]]:
    """What the batches of these steps hold."""
    return [content(batch) for batch in stream(dataset, steps, workers, kind, prefetch)]
