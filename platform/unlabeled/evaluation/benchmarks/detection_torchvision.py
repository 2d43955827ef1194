"""Detection: the backbone inside torchvision's Faster or Mask R-CNN, all of it trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unlabeled.config.ranges import at_least, positive
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.registry import register
from unlabeled.transfer.coco_tools import require_pycocotools
from unlabeled.transfer.detection_benchmark import DetectionBenchmark, rcnn_problems
from unlabeled.transfer.detection_data import Layout


@register("benchmark", "detection_torchvision")
class DetectionTorchvision(DetectionBenchmark):
    """Object detection with torchvision: every layer of backbone and detector is fine-tuned.

    The backbone (a ResNet or ResNeXt) carries a feature pyramid with the regions, heads and losses
    of torchvision's Faster or Mask R-CNN, which differ in details from Detectron2's: numbers
    compare with one another, not with those of benchmark=detection.
    Metrics, in percent, means over `runs` trainings with seeds seed, seed + 1, ...: AP50, AP (the
    mean over IoU 0.5, 0.55, ... 0.95) and AP75 of boxes by the layout's own measure (VOC 2007: 11
    points; COCO: pycocotools), on COCO AP first, and mask_AP, ... for mask_rcnn_fpn; <metric>_std
    is the deviation between runs. The data set is its own: `root`, not dataset=.
    EnvironmentProblem for layout=coco without pycocotools, DataError if files are absent or classes
    disagree, ConfigError for a backbone that does not fit, DivergenceError when the loss is not
    finite. Under DDP the ranks share batches and test images; batch_size counts over all of them.
    Reference: Ren et al., arXiv:1506.01497; Lin et al., arXiv:1612.03144; He et al., Mask R-CNN,
    arXiv:1703.06870; He et al., MoCo, arXiv:1911.05722, section 4.2.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/detection_torchvision.yaml`."""

        root: str
        """Holds VOC2007/ and VOC2012/ (voc), or annotations/, train2017/ and val2017/ (coco)."""
        layout: Literal["voc", "coco"] = "voc"
        """How the folder is laid out, and whose metric counts."""
        train: list[str] = field(default_factory=lambda: ["2007_trainval", "2012_trainval"])
        """Splits to train on: <year>_<list> (voc), or names such as train2017 (coco)."""
        test: str = "2007_test"
        """The split to measure on."""
        classes: list[str] | None = None
        """null: the twenty of VOC, or those that COCO's file lists."""
        detector: Literal["faster_rcnn_fpn", "mask_rcnn_fpn"] = "faster_rcnn_fpn"
        """Boxes alone, or boxes and masks."""
        runs: int = 5
        """Trainings with different seeds, whose mean counts (SwAV 4.2: five on VOC)."""
        iterations: int = 18000
        """Steps of training (Detectron2, VOC07+12 with a pyramid)."""
        decay_iterations: list[int] = field(default_factory=lambda: [12000, 16000])
        """Steps at which the rate is multiplied by 0.1 (Detectron2)."""
        batch_size: int = 16
        """Images a step, over all ranks (Detectron2)."""
        lr: float = 0.02
        """Rate after the warm-up (Detectron2)."""
        momentum: float = 0.9
        """Of SGD (Detectron2)."""
        weight_decay: float = 0.0001
        """Of all but the norms (Detectron2)."""
        warmup_iterations: int = 100
        """Steps of linear warm-up (Detectron2)."""
        warmup_factor: float = 0.001
        """The warm-up begins at this share of lr (Detectron2)."""
        norm: Literal["SyncBN", "BN", "FrozenBN"] = "SyncBN"
        """Batch norm of backbone and pyramid (MoCo: synchronised and trained)."""
        pyramid_channels: int = 256
        """Width of the pyramid and of the mask head (Lin et al.)."""
        train_sizes: list[int] = field(default_factory=lambda: list(range(480, 801, 32)))
        """Shorter sides of training images, one drawn per image (Detectron2)."""
        test_size: int = 800
        """Shorter side of test images (Detectron2)."""
        folder: str | None = None
        """Where checkpoints go, so that an interrupted training continues; null: none are kept."""
        checkpoint_iterations: int = 5000
        """Steps between two checkpoints."""
        options: dict[str, int | float] = field(default_factory=dict)
        """Further arguments of torchvision's FasterRCNN, such as box_batch_size_per_image."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges, names of splits, and masks without polygons."""
            yield from positive(
                self, "runs", "iterations", "batch_size", "lr", "pyramid_channels", "test_size",
                "checkpoint_iterations",
            )  # fmt: skip
            yield from at_least(
                self, 0, "momentum", "weight_decay", "warmup_iterations", "warmup_factor"
            )
            yield from rcnn_problems(self)

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.layout == "coco":
            require_pycocotools()

    @property
    def protocol(self) -> str:
        config = self.config
        return (
            f"torchvision {config.detector} ({config.norm}, all layers), "
            f"{'+'.join(config.train)} -> {config.test}, {config.iterations} iterations of "
            f"{config.batch_size}, lr {config.lr:g}, mean of {config.runs} "
            f"run{'s' if config.runs > 1 else ''} (schedule of Detectron2, norms of MoCo, "
            "arXiv:1911.05722, 4.2)"
        )

    @property
    def splits(self) -> tuple[Layout, Sequence[str], str]:
        return self.config.layout, self.config.train, self.config.test

    def once(self, probe: Probe, names: list[str], *, seed: int, folder: Path) -> dict[str, float]:
        from unlabeled.transfer.torchvision_benchmark import train_and_measure

        return train_and_measure(self.config, probe, names, seed=seed, folder=folder).metrics
