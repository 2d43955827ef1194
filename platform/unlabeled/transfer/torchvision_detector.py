"""torchvision's Faster and Mask R-CNN on a feature pyramid of our ResNets."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.resnet import ResNet
from torchvision.ops import FrozenBatchNorm2d

from unlabeled.config.schema import Normalization
from unlabeled.distributed.batch_norm import convert_sync_batch_norm
from unlabeled.errors import ConfigError
from unlabeled.transfer.coco_tools import run_lengths
from unlabeled.transfer.detection_pictures import Picture
from unlabeled.transfer.detector import Detections, Detector
from unlabeled.transfer.resnet_shape import shape_of

LONGEST_SIDE = 1333
"""Pixels of the longer side at most (Detectron2 and torchvision alike)."""
ON_THE_OBJECT = 0.5
"""Pixels of at least this probability are the mask."""

Norm = Literal["SyncBN", "BN", "FrozenBN"]


class RCNNSettings(Protocol):
    """What is read of a benchmark's config."""

    @property
    def detector(self) -> str: ...
    @property
    def norm(self) -> Norm: ...
    @property
    def pyramid_channels(self) -> int: ...
    @property
    def train_sizes(self) -> list[int]: ...
    @property
    def test_size(self) -> int: ...
    @property
    def options(self) -> dict[str, int | float]: ...


class RCNN(Detector):
    """Faster R-CNN, or Mask R-CNN, all layers of which are trained.

    A copy of the ResNet gives four stages to a pyramid of `pyramid_channels`; regions, heads and
    losses are torchvision's. Images are normalised as the backbone knows them, and resized so that
    the shorter side has one of `train_sizes`, drawn per image, or `test_size`.
    norm: of the backbone and, unless frozen, of the pyramid; SyncBN spans all ranks.
    ConfigError for an option that torchvision does not take.
    Reference: Ren et al., arXiv:1506.01497; Lin et al., arXiv:1612.03144; He et al.,
    arXiv:1703.06870.
    """

    def __init__(
        self,
        backbone: ResNet,
        settings: RCNNSettings,
        normalization: Normalization,
        *,
        num_classes: int,
        device_type: str,
    ) -> None:
        super().__init__()
        self._train_sizes = tuple(settings.train_sizes)
        self._test_size = settings.test_size
        pyramid = _pyramid(backbone, settings, device_type)
        _check_options(settings.options)
        masks = settings.detector == "mask_rcnn_fpn"
        self.model = (MaskRCNN if masks else FasterRCNN)(
            pyramid,
            num_classes + 1,  # and the background
            min_size=self._train_sizes,
            max_size=LONGEST_SIDE,
            image_mean=list(normalization.mean),
            image_std=list(normalization.std),
            **settings.options,
        )
        if masks:
            _set_mask_heads(self.model.roi_heads, settings.pyramid_channels, num_classes)

    def forward(self, pictures: Sequence[Picture]) -> Tensor:
        """The sum of the losses of regions, classes, boxes and masks."""
        self.model.transform.min_size = self._train_sizes
        images = [_floats(picture.image) for picture in pictures]
        losses: dict[str, Tensor] = self.model(images, [_target(each) for each in pictures])
        return torch.stack(list(losses.values())).sum()

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """Boxes after non-maximum suppression, with masks from Mask R-CNN."""
        self.model.transform.min_size = (self._test_size,)
        return [_detections(each) for each in self.model([_floats(image) for image in images])]


def _pyramid(backbone: ResNet, settings: RCNNSettings, device_type: str) -> nn.Module:
    """Lin et al., arXiv:1612.03144, with the backbone's norm, as MoCo has it."""
    shape = shape_of(backbone)
    frozen = settings.norm == "FrozenBN"
    body = deepcopy(backbone).requires_grad_(True)
    pyramid: nn.Module = BackboneWithFPN(
        _frozen(body) if frozen else body,
        {f"layer{stage + 1}": str(stage) for stage in range(4)},
        [shape.res2_width * 2**stage for stage in range(4)],
        settings.pyramid_channels,
        norm_layer=None if frozen else nn.BatchNorm2d,
    )
    if settings.norm == "SyncBN":
        return convert_sync_batch_norm(pyramid, group_size=None, device_type=device_type)
    return pyramid


def _frozen(module: nn.Module) -> nn.Module:
    """The module with batch norms that never change, neither statistics nor scale."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            norm.load_state_dict(child.state_dict())
            setattr(module, name, norm)
        else:
            _frozen(child)
    return module


def _set_mask_heads(roi_heads: Any, channels: int, num_classes: int) -> None:
    """torchvision's own, as wide as the pyramid: 256 channels give its defaults."""
    roi_heads.mask_head = MaskRCNNHeads(channels, (channels,) * 4, 1)
    roi_heads.mask_predictor = MaskRCNNPredictor(channels, channels, num_classes + 1)


def _check_options(options: dict[str, int | float]) -> None:
    """torchvision itself ignores arguments that it does not know."""
    known = [n for n in inspect.signature(FasterRCNN).parameters if n.startswith(("rpn_", "box_"))]
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f": it has {', '.join(known)}"
            raise ConfigError(f"benchmark.options: torchvision's FasterRCNN has no {name!r}{hint}")


def _floats(image: Tensor) -> Tensor:
    return image.float() / 255


def _target(picture: Picture) -> dict[str, Tensor]:
    """Class 0 is the background."""
    target = {"boxes": picture.boxes, "labels": picture.labels + 1}
    return target if picture.masks is None else {**target, "masks": picture.masks}


def _detections(found: dict[str, Tensor]) -> Detections:
    masks = None
    if "masks" in found:
        masks = run_lengths((found["masks"][:, 0] >= ON_THE_OBJECT).cpu().numpy())
    return Detections(
        found["boxes"].cpu().numpy(),
        found["scores"].cpu().numpy(),
        (found["labels"] - 1).cpu().numpy(),
        masks,
    )
