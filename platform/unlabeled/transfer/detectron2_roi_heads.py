"""The C4 detector's heads with a batch norm after the last stage."""

from __future__ import annotations

from typing import Any

from detectron2.layers import get_norm
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
from torch import nn

NAME = "Res5ROIHeadsExtraNorm"


class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """Per region: pooled C4 features -> res5 -> norm -> class and box.

    A pretrained network's res5 feeds an average pooling and a linear layer, whose scale nothing
    fixes; the norm (the backbone's kind, fresh) brings what enters the new heads to unit scale.
    Reference: He et al., MoCo, arXiv:1911.05722, appendix ("Res5 + extra BN").
    """

    @classmethod
    def _build_res5_block(cls, cfg: Any) -> tuple[nn.Sequential, int]:
        stage, channels = super()._build_res5_block(cfg)
        stage.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return stage, channels


def register_heads() -> None:
    """Make the heads known to Detectron2 under their name, once a process."""
    if NAME not in ROI_HEADS_REGISTRY:
        ROI_HEADS_REGISTRY.register(Res5ROIHeadsExtraNorm)
