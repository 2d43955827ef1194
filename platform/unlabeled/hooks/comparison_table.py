"""The small table at the end of a run: is it better than nothing?"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from unlabeled.config.check import to_data
from unlabeled.distributed import comm
from unlabeled.hooks.base import Hook
from unlabeled.registry import Component, register

if TYPE_CHECKING:
    from unlabeled.engine.probe_data import ProbeData
    from unlabeled.engine.trainer import Trainer
    from unlabeled.evaluation.features import FeatureSet
    from unlabeled.evaluation.subject import Subject

log = logging.getLogger(__name__)


@register("hook", "comparison_table")
class ComparisonTable(Hook):
    """Measure raw pixels, the backbone as it was initialised, and the pretrained backbone.

    Every row is measured by the same benchmarks on the same images, and every number is printed
    with the command that repeats it. Results of the pretrained row go to the run's results folder.
    Passed over where the data has no labels or no test split.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What is measured."""

        benchmarks: dict[str, Annotated[Component, "benchmark"]]
        """Benchmarks by the name that the table shows."""
        image_size: int
        """Side of the evaluation view, for the raw pixels row."""

    def before_fit(self, trainer: Trainer) -> None:
        """Say before the training, not after it, when there is nothing to measure on."""
        if isinstance(trainer.probe_data, str):
            log.info("no comparison table: %s", trainer.probe_data)

    def after_fit(self, trainer: Trainer) -> None:
        """Measure and print."""
        if isinstance(trainer.probe_data, str):
            return
        subjects = self._subjects(trainer, trainer.probe_data)
        rows = [self._row(trainer, name, subject) for name, subject in subjects]
        from unlabeled.evaluation.results import format_table

        if comm.rank() == 0:
            log.info("\n%s\n", format_table(rows))
            log.info("each number again:")
            for benchmark in self.config.benchmarks.values():
                for weights in self._weights(trainer).values():
                    log.info("  unlabeled evaluate %s %s", as_arguments(benchmark), weights)

    def _weights(self, trainer: Trainer) -> dict[str, str]:
        """The arguments of `unlabeled evaluate` for every row."""
        run = shlex.quote(str(trainer.run.path))
        pixels = f"backbone=raw_pixels backbone.image_size={self.config.image_size}"
        return {
            "raw pixels": f"weights=random {pixels} like={run}",
            "random initialisation": f"weights=random like={run}",
            "pretrained": f"weights={run}",
        }

    def _subjects(self, trainer: Trainer, data: ProbeData) -> list[tuple[str, Subject]]:
        from unlabeled.engine.build import build_backbone
        from unlabeled.evaluation.subject import Subject
        from unlabeled.registry import get

        config = trainer.config
        pixels = get("backbone", "raw_pixels")
        backbones = {
            "raw pixels": pixels(pixels.Config(image_size=self.config.image_size)),
            "random initialisation": build_backbone(config),
            "pretrained": trainer.method.evaluated_backbone,
        }
        return [
            (
                name,
                Subject(
                    backbone=backbone,
                    dataset=config.dataset.name,
                    train=data.train,
                    test=data.test,
                    transform=config.eval_transform,
                    normalization=config.normalization,
                    run=trainer.run,
                ),
            )
            for name, backbone in backbones.items()
        ]

    def _row(self, trainer: Trainer, name: str, subject: Subject) -> dict[str, Any]:
        from unlabeled.config.schema import EvaluateConfig
        from unlabeled.evaluation.evaluate import measure, result_paths, save_result

        config, row = trainer.config, dict[str, Any](features=name)
        cache: dict[str, FeatureSet] = {}
        for label, benchmark in self.config.benchmarks.items():
            asked = EvaluateConfig(
                weights=str(trainer.run.path),
                benchmark=benchmark,
                batch_size=config.batch_size,
                seed=config.seed,
                device=config.device,
                threads=config.threads,
                loader=config.loader,
                out=None,
                result=label,
                launch=config.launch,
                plugins=config.plugins,
            )
            result = measure(asked, subject, trainer.device, cache)
            row[f"{label} top-1"] = result.metrics["top1"]
            if name == "pretrained" and comm.rank() == 0:
                for path in result_paths(asked, subject):
                    save_result(path, result)
        return row


def as_arguments(benchmark: Component) -> str:
    """What a shell needs to name a benchmark and the fields that are not its defaults."""
    standard = to_data(type(benchmark.fields)())
    changed = _changed("benchmark", to_data(benchmark.fields), standard)
    return " ".join([f"benchmark={benchmark.name}", *map(shlex.quote, changed)])


def _changed(path: str, value: Any, standard: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and isinstance(standard, Mapping):
        for key in value:
            yield from _changed(f"{path}.{key}", value[key], standard.get(key))
    elif value != standard:
        spelled = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        yield f"{path}={spelled}"
