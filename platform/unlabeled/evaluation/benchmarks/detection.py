"""Detection: the backbone inside a detector of Detectron2, all of it trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unlabeled.config.ranges import at_least, positive
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.registry import register
from unlabeled.transfer.detection_benchmark import DetectionBenchmark, rcnn_problems
from unlabeled.transfer.detection_data import Layout
from unlabeled.transfer.detection_images import DetectionImages
from unlabeled.transfer.detection_runs import loading_workers, normalization_of
from unlabeled.transfer.detectron2_installed import require_detectron2
from unlabeled.transfer.resnet_shape import resnet_of


@register("benchmark", "detection")
class Detection(DetectionBenchmark):
    """Object detection with Detectron2: every layer of backbone and detector is fine-tuned.

    The backbone (a ResNet or ResNeXt) becomes Faster R-CNN C4, with a batch norm after its last
    stage, or Faster or Mask R-CNN on a feature pyramid; pixels are normalised as in pretraining.
    Metrics, in percent, means over `runs` trainings with seeds seed, seed + 1, ...: AP50, AP (the
    mean over IoU 0.5, 0.55, ... 0.95) and AP75 of boxes by Detectron2's evaluator of the layout
    (VOC 2007: 11 points), on COCO AP first, and mask_AP, ... for mask_rcnn_fpn; <metric>_std is the
    deviation between runs. The data set is its own: `root`, not dataset=.
    EnvironmentProblem without Detectron2, DataError if files are absent or classes disagree,
    ConfigError for a backbone that does not fit, DivergenceError when the loss is not finite.
    Under DDP the ranks share batches and test images; batch_size counts over all of them.
    Reference: He et al., MoCo, arXiv:1911.05722, section 4.2; Caron et al., SwAV, arXiv:2006.09882,
    section 4.2; Wu et al., Detectron2, https://github.com/facebookresearch/detectron2.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/detection.yaml`."""

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
        detector: Literal["faster_rcnn_c4", "faster_rcnn_fpn", "mask_rcnn_fpn"] = "faster_rcnn_c4"
        """c4: proposals from the third stage, the fourth runs per region; fpn: all four stages."""
        runs: int = 5
        """Trainings with different seeds, whose mean counts (SwAV 4.2: five on VOC)."""
        iterations: int = 24000
        """Steps of training (MoCo, VOC07+12)."""
        decay_iterations: list[int] = field(default_factory=lambda: [18000, 22000])
        """Steps at which the rate is multiplied by 0.1 (MoCo)."""
        batch_size: int = 16
        """Images a step, over all ranks (MoCo)."""
        lr: float = 0.1
        """Rate after the warm-up (SwAV's override; MoCo 0.02)."""
        warmup_iterations: int = 1000
        """Steps of linear warm-up (SwAV's override; MoCo 100)."""
        warmup_factor: float = 0.333
        """The warm-up begins at this share of lr (SwAV's override; MoCo 0.001)."""
        norm: Literal["SyncBN", "BN", "FrozenBN"] = "SyncBN"
        """Batch norm of backbone, extra norm and pyramid (MoCo: synchronised and trained)."""
        precise_bn_iterations: int = 200
        """Batches whose statistics replace the running ones after training; 0: none (MoCo: on)."""
        train_sizes: list[int] = field(default_factory=lambda: list(range(480, 801, 32)))
        """Shorter sides of training images, one drawn per image (MoCo)."""
        test_size: int = 800
        """Shorter side of test images (MoCo)."""
        folder: str | None = None
        """Where checkpoints go, so that an interrupted training continues; null: none are kept."""
        detectron2: list[str | int | float | bool] = field(default_factory=list)
        """Keys and values of Detectron2's own config in turn, which win over all of the above."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges, names of splits, and masks without polygons."""
            yield from positive(self, "runs", "iterations", "batch_size", "lr", "test_size")
            yield from at_least(
                self, 0, "warmup_iterations", "warmup_factor", "precise_bn_iterations"
            )
            yield from rcnn_problems(self)
            if len(self.detectron2) % 2:
                yield "detectron2", "needs keys and values in turn: [SOLVER.GAMMA, 0.2]"

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        require_detectron2()

    @property
    def protocol(self) -> str:
        config = self.config
        return (
            f"Detectron2 {config.detector} ({config.norm}, all layers), "
            f"{'+'.join(config.train)} -> {config.test}, {config.iterations} iterations of "
            f"{config.batch_size}, lr {config.lr:g}, mean of {config.runs} "
            f"run{'s' if config.runs > 1 else ''} (MoCo, arXiv:1911.05722, 4.2; SwAV, "
            "arXiv:2006.09882, 4.2)"
        )

    @property
    def splits(self) -> tuple[Layout, Sequence[str], str]:
        return self.config.layout, self.config.train, self.config.test

    def once(self, probe: Probe, names: list[str], *, seed: int, folder: Path) -> dict[str, float]:
        from unlabeled.transfer.detectron2_benchmark import train_and_measure

        assert isinstance(probe.train, DetectionImages) and isinstance(probe.test, DetectionImages)
        return train_and_measure(
            self.config,
            resnet_of(probe.encode),
            normalization_of(probe),
            names,
            train=probe.train.splits,
            test=probe.test.splits[0],
            device=probe.device,
            workers=loading_workers(probe),
            seed=seed,
            folder=folder,
        ).metrics
