"""ResNeXts, with torchvision's parameter names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from unlabeled.config.ranges import at_least
from unlabeled.models.backbones.torchvision_resnet import ScaledResNet, loading_code
from unlabeled.registry import register


@register("backbone", "resnext")
class ResNeXt(ScaledResNet):
    """ResNet with grouped 3x3 convolutions: images [B, 3, h, w] -> features [B, 2048].

    Equal to torchvision's resnext50_32x4d, resnext101_32x8d and resnext101_64x4d at their settings.
    Reference: Xie et al. 2017, arXiv 1611.05431.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the backbone."""

        depth: Literal[50, 101, 152] = 50
        """Layers."""
        groups: int = 32
        """Groups of the 3x3 convolutions (cardinality)."""
        width_per_group: int = 4
        """Channels of a group in the first stage; doubles at every stage."""
        stem: Literal["imagenet", "small"] = "imagenet"
        """imagenet: 7x7 stride 2 and max-pool; small: 3x3 stride 1, for images of about 32 px."""
        zero_init_residual: bool = False
        """Start the last batch norm of every block at zero."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from at_least(self, 1, "groups", "width_per_group")

    def __init__(self, config: Config) -> None:
        super().__init__(
            config.depth,
            stem=config.stem,
            groups=config.groups,
            width_per_group=config.width_per_group,
            zero_init_residual=config.zero_init_residual,
        )
        arguments = f", groups={config.groups}, width_per_group={config.width_per_group}"
        self.how_to_load = loading_code(self, config.depth, config.stem, arguments=arguments)
