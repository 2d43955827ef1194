"""ResNets of any depth and width, with torchvision's parameter names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from unlabeled.models.backbones.torchvision_resnet import (
    ScaledResNet,
    loading_code,
    width_problems,
)
from unlabeled.registry import register


@register("backbone", "resnet")
class ResNet(ScaledResNet):
    """ResNet with global average pooling: images [B, 3, h, w] -> features [B, feature_dim].

    feature_dim = 512 x width for depths 18 and 34, 2048 x width for 50, 101 and 152; half as much
    for each stage left out.
    The widths 2, 4 and 5 of the SwAV paper multiply every stage and the stem: ResNet-50 has 24 M,
    94 M, 375 M and 586 M parameters at width 1, 2, 4 and 5. Any image size is accepted.
    Reference: He et al. 2016, arXiv 1512.03385; Caron et al. 2020, appendix B.2 (widths).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the backbone."""

        depth: Literal[18, 34, 50, 101, 152] = 50
        """Layers: basic blocks at 18 and 34, bottlenecks from 50."""
        width: float = 1.0
        """Multiplier of all channels (SwAV: 1, 2, 4, 5); below 1 for small runs."""
        stem: Literal["imagenet", "small"] = "imagenet"
        """imagenet: 7x7 stride 2 and max-pool; small: 3x3 stride 1, for images of about 32 px."""
        stages: Literal[1, 2, 3, 4] = 4
        """How many of the four stages to keep, from the first; fewer for small images."""
        zero_init_residual: bool = False
        """Start the last batch norm of every block at zero (SwAV does not)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from width_problems(self.width)

    def __init__(self, config: Config) -> None:
        super().__init__(
            config.depth,
            width=config.width,
            stem=config.stem,
            stages=config.stages,
            zero_init_residual=config.zero_init_residual,
        )
        self.how_to_load = loading_code(self, config.depth, config.stem, config.stages)
