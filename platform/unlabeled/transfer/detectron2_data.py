"""Splits on disk in Detectron2's catalogue, and the evaluators of their layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator

from unlabeled.transfer.detection_data import COCOSplit, DetectionSplit, VOCSplit


def register_split(split: DetectionSplit, classes: Sequence[str]) -> str:
    """The name under which Detectron2 finds the split from now on; read anew, should it change."""
    name = f"{split.name}@{split.root}"
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    if isinstance(split, VOCSplit):
        register_pascal_voc(
            name, str(split.folder), split.list_name, split.year, class_names=list(classes)
        )
    elif isinstance(split, COCOSplit):
        register_coco_instances(name, {}, str(split.json_file), str(split.folder))
    return name


def evaluator(split: DetectionSplit, name: str, *, masks: bool) -> Any:
    """Detectron2's evaluator of the layout: VOC's with 11 points for 2007, COCO's with masks.

    COCO's is pycocotools, not Detectron2's faster rewrite, which asks not to be used in papers.
    """
    if isinstance(split, VOCSplit):
        return PascalVOCDetectionEvaluator(name)
    tasks = ("bbox", "segm") if masks else ("bbox",)
    return COCOEvaluator(name, tasks=tasks, use_fast_impl=False)
