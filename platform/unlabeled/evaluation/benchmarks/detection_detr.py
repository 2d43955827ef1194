"""Detection with DETR: a transformer on the backbone's last stage, trained together with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unlabeled.config.ranges import at_least, positive
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.registry import register
from unlabeled.transfer.coco_tools import require_pycocotools
from unlabeled.transfer.detection_benchmark import DetectionBenchmark
from unlabeled.transfer.detection_data import Layout
from unlabeled.transfer.transformers_detr import require_transformers


@register("benchmark", "detection_detr")
class DetectionDETR(DetectionBenchmark):
    """Object detection on COCO with DETR of the transformers library, as the SwAV paper measures.

    The backbone (a ResNet) is trained from its second stage on, with a rate of its own and frozen
    norms, under a transformer that starts anew; pixels are normalised as in pretraining.
    Metrics, in percent, means over `runs` trainings with seeds seed, seed + 1, ...: AP (the mean
    over IoU 0.5, 0.55, ... 0.95), AP50 and AP75 of boxes by pycocotools; <metric>_std is the
    deviation between runs. The data set is its own: `root`, in COCO's layout, not dataset=.
    EnvironmentProblem without transformers or pycocotools, DataError if files are absent or classes
    disagree, ConfigError for a backbone that does not fit, DivergenceError when the loss is not
    finite. Under DDP the ranks share batches and test images; batch_size counts over all of them.
    Reference: Carion et al., DETR, arXiv:2005.12872; Caron et al., SwAV, arXiv:2006.09882, section
    4.2, and its repository.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/detection_detr.yaml`."""

        root: str
        """Holds annotations/, train2017/ and val2017/."""
        train: str = "train2017"
        """The split to train on."""
        test: str = "val2017"
        """The split to measure on."""
        classes: list[str] | None = None
        """null: those that the training file lists."""
        runs: int = 1
        """Trainings with different seeds, whose mean counts."""
        epochs: int = 300
        """Passes over the training split (DETR)."""
        decay_epochs: int = 200
        """Passes after which the rates are multiplied by 0.1 (DETR)."""
        batch_size: int = 64
        """Images a step, over all ranks (SwAV: 16 GPUs of 4)."""
        lr: float = 0.0001
        """Rate of AdamW for all that is new (DETR)."""
        lr_backbone: float = 0.00005
        """Rate of the backbone (SwAV; DETR's own for supervised weights: 0.00001)."""
        weight_decay: float = 0.0001
        """Of all parameters (DETR)."""
        largest_gradient: float = 0.1
        """Longer gradients are shortened to this norm (DETR)."""
        train_sizes: list[int] = field(default_factory=lambda: list(range(480, 801, 32)))
        """Shorter sides of training images, one drawn per image (DETR)."""
        test_size: int = 800
        """Shorter side of test images (DETR)."""
        folder: str | None = None
        """Where checkpoints go, so that an interrupted training continues; null: none are kept."""
        checkpoint_epochs: int = 1
        """Passes between two checkpoints."""
        options: dict[str, int | float] = field(default_factory=dict)
        """Further arguments of DetrConfig, such as num_queries."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from positive(
                self, "runs", "epochs", "decay_epochs", "batch_size", "lr", "lr_backbone",
                "largest_gradient", "test_size", "checkpoint_epochs",
            )  # fmt: skip
            yield from at_least(self, 0, "weight_decay")
            if not self.train_sizes:
                yield "train_sizes", "needs one or more"
            if self.classes is not None and not self.classes:
                yield "classes", "needs one or more, or null"

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        require_pycocotools()
        require_transformers()

    @property
    def protocol(self) -> str:
        config = self.config
        return (
            f"DETR, {config.train} -> {config.test}, {config.epochs} epochs in batches of "
            f"{config.batch_size}, AdamW, lr {config.lr:g}, of the backbone "
            f"{config.lr_backbone:g}, mean of {config.runs} run{'s' if config.runs > 1 else ''} "
            "(DETR, arXiv:2005.12872; SwAV, arXiv:2006.09882, 4.2)"
        )

    @property
    def splits(self) -> tuple[Layout, Sequence[str], str]:
        return "coco", [self.config.train], self.config.test

    def once(self, probe: Probe, names: list[str], *, seed: int, folder: Path) -> dict[str, float]:
        from unlabeled.transfer.detr_benchmark import train_and_measure

        return train_and_measure(self.config, probe, names, seed=seed, folder=folder).metrics
