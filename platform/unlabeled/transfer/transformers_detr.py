"""DETR of the transformers library on our ResNets; nothing else imports that library."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import ResNet
from torchvision.ops import box_convert
from torchvision.transforms.v2 import functional as F

from unlabeled.config.schema import Normalization
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError, EnvironmentProblem
from unlabeled.models.backbones.torchvision_resnet import BLOCKS
from unlabeled.transfer.detection_pictures import Picture
from unlabeled.transfer.detector import Detections, Detector
from unlabeled.transfer.detr_views import LONGEST_SIDE, new_size
from unlabeled.transfer.resnet_shape import shape_of
from unlabeled.transfer.transformers_names import fill

DROPOUT = 0.1
"""In attention, feed-forward layers and residual branches alike (DETR)."""
TRAINED_STAGES = ("encoder.stages.1.", "encoder.stages.2.", "encoder.stages.3.")
"""The stem and the first stage stay as they are (DETR); left alone, the library freezes all."""
LOSSES = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
"""Weights of the parts of the loss (DETR)."""
PER_BOX = ("loss_bbox", "loss_giou")
"""Parts that the library divides by the boxes of this rank alone."""


class DETRSettings(Protocol):
    """What is read of a benchmark's config."""

    @property
    def test_size(self) -> int: ...
    @property
    def options(self) -> dict[str, int | float]: ...


def require_transformers() -> None:
    """EnvironmentProblem that says how to install it, unless it imports."""
    try:
        importlib.import_module("transformers")
    except ImportError as error:
        raise EnvironmentProblem(
            f"benchmark=detection_detr needs the transformers library, which does not import "
            f"({error}); run `pip install 'unlabeled[detr]'`"
        ) from error


class DETR(Detector):
    """A transformer on the last stage of the ResNet, whose queries become boxes.

    The library's model with DETR's own constants and initialisation, which differ from the
    library's defaults; the ResNet's norms, stem and first stage are frozen. Images are normalised
    as the backbone knows them and padded to the largest of the batch.
    ConfigError for a ResNeXt, or an option that is none; CheckpointError if a tensor does not fit.
    Under DDP losses of boxes count over all ranks.
    Reference: Carion et al., arXiv:2005.12872, and its code.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: ResNet,
        settings: DETRSettings,
        normalization: Normalization,
        *,
        num_classes: int,
    ) -> None:
        super().__init__()
        self._test_size = settings.test_size
        for name, values in (("mean", normalization.mean), ("std", normalization.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1), persistent=False)
        self.model = _model(backbone, settings.options, num_classes)
        fill(self.backbone, backbone.state_dict())
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name.startswith(TRAINED_STAGES))
        _initialise(self.model)

    @property
    def backbone(self) -> nn.Module:
        """The library's ResNet, wherever its release keeps it."""
        from transformers import ResNetBackbone

        found: nn.Module = next(m for m in self.model.modules() if isinstance(m, ResNetBackbone))
        return found

    def forward(self, pictures: Sequence[Picture]) -> Tensor:
        """Cross-entropy + 5 L1 + 2 (1 - generalised IoU) of matched boxes, after every layer."""
        pixels, mask = self.batch([picture.image for picture in pictures])
        parts: dict[str, Tensor] = self.model(
            pixel_values=pixels, pixel_mask=mask, labels=[_label(each) for each in pictures]
        ).loss_dict
        share = _share_of_boxes(sum(len(each.labels) for each in pictures), pixels.device)
        total = pixels.new_zeros(())
        for name, value in parts.items():
            kind = name.rstrip("_0123456789")
            if kind in LOSSES:
                total = total + LOSSES[kind] * value * (share if kind in PER_BOX else 1.0)
        return total

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """A box for every query, of the class that is likeliest beside "nothing"."""
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        smaller = [
            F.resize(image, list(new_size(*size, self._test_size, LONGEST_SIDE)), antialias=True)
            for image, size in zip(images, sizes, strict=True)
        ]
        pixels, mask = self.batch(smaller)
        found = self.model(pixel_values=pixels, pixel_mask=mask)
        scores, labels = found.logits.softmax(-1)[..., :-1].max(-1)  # [B, Q]
        boxes = box_convert(found.pred_boxes, "cxcywh", "xyxy")  # [B, Q, 4], in [0, 1]
        return [
            Detections(
                (boxes[row] * boxes.new_tensor([width, height] * 2)).cpu().numpy(),
                scores[row].cpu().numpy(),
                labels[row].cpu().numpy(),
            )
            for row, (height, width) in enumerate(sizes)
        ]

    def batch(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Normalised images [B, 3, h, w] with zeros where there is none, and where one is."""
        height, width = (max(image.shape[side] for image in images) for side in (1, 2))
        pixels, masks = [], []
        for image in images:
            padding = (0, width - image.shape[2], 0, height - image.shape[1])
            normalised = (image.float() - self.mean) / self.std
            pixels.append(functional.pad(normalised, padding))
            masks.append(functional.pad(torch.ones_like(image[0], dtype=torch.long), padding))
        return torch.stack(pixels), torch.stack(masks)


def _model(backbone: ResNet, options: dict[str, int | float], num_classes: int) -> Any:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    shape = shape_of(backbone)
    if shape.groups > 1:
        raise ConfigError(
            f"backbone: DETR of the transformers library takes a ResNet, this is a ResNeXt of "
            f"{shape.groups} groups"
        )
    resnet = ResNetConfig(
        embedding_size=shape.stem_width,
        hidden_sizes=[shape.res2_width * 2**stage for stage in range(4)],
        depths=BLOCKS[shape.depth],
        layer_type="bottleneck" if shape.bottleneck else "basic",
        downsample_in_bottleneck=False,  # the stride is in the 3x3, as in torchvision
        out_features=["stage4"],
    )
    known: dict[str, Any] = {
        "attention_dropout": DROPOUT,
        "activation_dropout": DROPOUT,
        "dropout": DROPOUT,
        "auxiliary_loss": True,
        "class_cost": 1,
        "bbox_cost": 5,
        "giou_cost": 2,
        "eos_coefficient": 0.1,
    }
    unknown = sorted(set(options) - set(DetrConfig().to_dict()))
    if unknown:
        raise ConfigError(f"benchmark.options: DetrConfig has no {', '.join(unknown)}")
    return DetrForObjectDetection(
        DetrConfig(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=resnet,
            num_labels=num_classes,
            **known | options,
        )
    )


def _initialise(model: Any) -> None:
    """As DETR's code does: torch's defaults, and Xavier's bounds within the transformer.

    Queries, keys and values are one matrix there, whose bound is that of [3 d, d].
    """
    heads: Iterable[nn.Module] = (
        model.model.input_projection,
        model.model.query_position_embeddings,
        model.class_labels_classifier,
        *model.bbox_predictor.modules(),
    )
    for module in heads:
        if isinstance(module, nn.Conv2d | nn.Embedding | nn.Linear):
            module.reset_parameters()
    for part in (model.model.encoder, model.model.decoder):
        for name, parameter in part.named_parameters():
            if parameter.dim() > 1:
                joined = name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))
                nn.init.xavier_uniform_(parameter, gain=math.sqrt(0.5) if joined else 1.0)


def _label(picture: Picture) -> dict[str, Tensor]:
    height, width = picture.image.shape[1:]
    scale = picture.boxes.new_tensor([width, height] * 2)
    boxes = box_convert(picture.boxes, "xyxy", "cxcywh") / scale
    return {"class_labels": picture.labels, "boxes": boxes}


def _share_of_boxes(count: int, device: torch.device) -> float:
    """This rank's boxes over the mean of all ranks: its weight among them, 1 when alone."""
    total = float(comm.all_reduce_sum(torch.tensor(float(count), device=device)))
    return max(count, 1) / max(total / comm.world_size(), 1.0)
