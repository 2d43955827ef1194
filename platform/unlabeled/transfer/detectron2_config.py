"""Detectron2's own config, from the benchmark's fields and the backbone's shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from detectron2.config import get_cfg

from unlabeled.config.schema import Normalization
from unlabeled.errors import ConfigError
from unlabeled.transfer import detectron2_roi_heads
from unlabeled.transfer.resnet_shape import ResNetShape

if TYPE_CHECKING:
    from unlabeled.evaluation.benchmarks.detection import Detection


def detectron2_config(
    settings: Detection.Config,
    shape: ResNetShape,
    normalization: Normalization,
    *,
    num_classes: int,
    train: Sequence[str],
    test: str,
    device: torch.device,
    workers: int,
    seed: int,
    folder: str,
) -> Any:
    """A frozen CfgNode; `train` and `test` are names in Detectron2's catalogue.

    ConfigError if a pair of `settings.detectron2` is no key or no value of Detectron2's.
    """
    cfg = get_cfg()
    cfg.MODEL.DEVICE = str(device)
    cfg.MODEL.WEIGHTS = ""  # filled by detectron2_names.load_backbone
    _backbone(cfg, shape, settings.norm)
    if settings.detector == "faster_rcnn_c4":
        _c4(cfg, shape)
    else:
        _fpn(cfg, settings)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    _input(cfg, settings, normalization)
    _solver(cfg, settings)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(train), (test,)
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.SEED = seed
    cfg.OUTPUT_DIR = folder
    try:
        cfg.merge_from_list(list(settings.detectron2))
    except (AssertionError, KeyError, ValueError) as error:  # what yacs raises
        raise ConfigError(f"benchmark.detectron2: {error}") from error
    cfg.freeze()
    return cfg


def _backbone(cfg: Any, shape: ResNetShape, norm: str) -> None:
    """torchvision's ResNet: stride in the 3x3 (He et al. have it in the 1x1), all layers learn."""
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    resnet = cfg.MODEL.RESNETS
    resnet.DEPTH = shape.depth
    resnet.NORM = norm
    resnet.STRIDE_IN_1X1 = False
    resnet.STEM_OUT_CHANNELS = shape.stem_width
    resnet.RES2_OUT_CHANNELS = shape.res2_width
    resnet.NUM_GROUPS = shape.groups
    resnet.WIDTH_PER_GROUP = shape.width_per_group
    if not shape.bottleneck and shape.res2_width != 64:
        raise ConfigError(
            f"backbone: Detectron2 builds ResNet-{shape.depth} at width 1 alone, and this one has "
            f"{shape.res2_width} instead of 64 channels; take depth 50, of any width"
        )


def _c4(cfg: Any, shape: ResNetShape) -> None:
    """Proposals from res4; every region goes through res5 and the extra norm."""
    if not shape.bottleneck:
        raise ConfigError(
            f"backbone: faster_rcnn_c4 needs bottleneck blocks (depth 50 or more), this is a "
            f"ResNet-{shape.depth}; take benchmark.detector=faster_rcnn_fpn"
        )
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    cfg.MODEL.RPN.IN_FEATURES = ["res4"]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 6000
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 1000
    cfg.MODEL.ROI_HEADS.NAME = detectron2_roi_heads.NAME
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["res4"]
    detectron2_roi_heads.register_heads()


def _fpn(cfg: Any, settings: Detection.Config) -> None:
    """A feature pyramid with the backbone's norm, one anchor size a level, and a mask head.

    Lin et al., arXiv:1612.03144; counts of proposals as in Detectron2's Base-RCNN-FPN.
    """
    pyramid = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.NORM = settings.norm
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.RPN.IN_FEATURES = [*pyramid, "p6"]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = 2000
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 1000
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 1000
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 1000
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = pyramid
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    cfg.MODEL.MASK_ON = settings.detector == "mask_rcnn_fpn"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 4
    cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 14


def _input(cfg: Any, settings: Detection.Config, normalization: Normalization) -> None:
    """Pixels as the backbone knows them: RGB, with the mean and deviation it was trained with."""
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = [255 * mean for mean in normalization.mean]
    cfg.MODEL.PIXEL_STD = [255 * std for std in normalization.std]
    cfg.INPUT.MIN_SIZE_TRAIN = tuple(settings.train_sizes)
    cfg.INPUT.MIN_SIZE_TEST = settings.test_size


def _solver(cfg: Any, settings: Detection.Config) -> None:
    """SGD, linear warm-up, x 0.1 at the steps; momentum and decay are Detectron2's."""
    solver = cfg.SOLVER
    solver.IMS_PER_BATCH = settings.batch_size
    solver.BASE_LR = settings.lr
    solver.MAX_ITER = settings.iterations
    solver.STEPS = tuple(settings.decay_iterations)
    solver.WARMUP_ITERS = settings.warmup_iterations
    solver.WARMUP_FACTOR = settings.warmup_factor
