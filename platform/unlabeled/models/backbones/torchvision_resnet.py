"""torchvision's ResNet with every width scaled and a stem for small images; shared by two families.

Parameters are named as in torchvision, so that weights go both ways without this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

BLOCKS: dict[int, list[int]] = {
    18: [2, 2, 2, 2],
    34: [3, 4, 6, 3],
    50: [3, 4, 6, 3],
    101: [3, 4, 23, 3],
    152: [3, 8, 36, 3],
}
"""Residual blocks of the four stages by depth (He et al. 2016, table 1)."""

STAGES = 4
"""Stages of a whole network, torchvision's layer1 to layer4."""

STAGE_WIDTH = 64
"""Channels of the stem and planes of the first stage at width 1."""


class ScaledResNet(ResNet):
    """Images [B, 3, h, w] -> pooled features [B, feature_dim]; a torchvision ResNet without `fc`.

    width multiplies the channels of the stem and of every stage (not the bottlenecks' inner width
    alone, as torchvision's wide_resnet50_2 does). The `small` stem is a 3x3 convolution of stride 1
    without max-pool, for images of about 32 pixels. Of the four stages the first `stages` are kept.
    Initialisation is torchvision's: Kaiming normal over fan-out for convolutions, 1 and 0 for batch
    norm.
    Batch statistics are those of the rank unless the model is converted to synchronised ones.
    """

    def __init__(
        self,
        depth: int,
        *,
        width: float = 1.0,
        stem: Literal["imagenet", "small"] = "imagenet",
        stages: int = STAGES,
        groups: int = 1,
        width_per_group: int = 64,
        zero_init_residual: bool = False,
    ) -> None:
        block = Bottleneck if depth >= 50 else BasicBlock
        self._stem_width = scaled_width(width)
        super().__init__(
            block,
            BLOCKS[depth],
            num_classes=1,
            groups=groups,
            width_per_group=width_per_group,
            zero_init_residual=zero_init_residual,
        )
        self._set_stem(stem)
        for stage in range(stages + 1, STAGES + 1):
            setattr(self, f"layer{stage}", nn.Identity())
        # Widths double from stage to stage: the fourth has 8 times the stem's planes.
        self.feature_dim: int = 2 ** (stages - 1) * self._stem_width * block.expansion
        self.fc = nn.Identity()

    def feature_map(self, images: Tensor) -> Tensor:
        """The last stage's map [B, feature_dim, h, w], which pooling averages."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        last: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(stem))))
        return last

    def _make_layer(
        self,
        block: type[BasicBlock | Bottleneck],
        planes: int,
        blocks: int,
        stride: int = 1,
        dilate: bool = False,
    ) -> nn.Sequential:
        if planes == STAGE_WIDTH:
            self.inplanes = self._stem_width
        planes = planes * self._stem_width // STAGE_WIDTH
        layer: nn.Sequential = super()._make_layer(block, planes, blocks, stride, dilate)
        return layer

    def _set_stem(self, stem: str) -> None:
        """Replace the parts of torchvision's stem that differ, initialised in the same way."""
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        if stem == "small":
            self.maxpool = nn.Identity()
        elif self._stem_width == STAGE_WIDTH:
            return
        self.conv1 = nn.Conv2d(3, self._stem_width, kernel, stride, kernel // 2, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(self._stem_width)


def scaled_width(width: float) -> int:
    """Channels of the stem for a width multiplier."""
    return int(STAGE_WIDTH * width)


def width_problems(width: float) -> Iterator[tuple[str, str]]:
    """Faults of a width multiplier."""
    if width <= 0 or STAGE_WIDTH * width != scaled_width(width):
        yield (
            "width",
            f"must be positive and a multiple of 1/{STAGE_WIDTH} (a whole number of channels), "
            f"got {width}; use 1, 2, 4, 5, or 0.25 for a small run",
        )


def loading_code(
    model: ScaledResNet, depth: int, stem: str, stages: int = STAGES, arguments: str = ""
) -> str:
    """Python that rebuilds `model` as `m` with torch and torchvision alone; see `how_to_load`."""
    width = model.conv1.out_channels
    block = "Bottleneck" if depth >= 50 else "BasicBlock"
    made = f"ResNet({block}, {BLOCKS[depth]}{arguments})"
    lines = ["import torch", f"from torchvision.models.resnet import {block}, ResNet"]
    if width == STAGE_WIDTH:
        lines.append(f"m = {made}")
    else:
        lines += [
            "class Scaled(ResNet):",
            "    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):",
            f"        self.inplanes = {width} if planes == 64 else self.inplanes",
            f"        planes = planes * {width} // 64",
            "        return super()._make_layer(block, planes, blocks, stride, dilate)",
            f"m = Scaled{made.removeprefix('ResNet')}",
        ]
    if width != STAGE_WIDTH or stem == "small":
        shape = "3, 1, 1" if stem == "small" else "7, 2, 3"
        lines.append(f"m.conv1 = torch.nn.Conv2d(3, {width}, {shape}, bias=False)")
        lines.append(f"m.bn1 = torch.nn.BatchNorm2d({width})")
    if stem == "small":
        lines.append("m.maxpool = torch.nn.Identity()")
    lines += [f"m.layer{i} = torch.nn.Identity()" for i in range(stages + 1, STAGES + 1)]
    return "\n".join([*lines, "m.fc = torch.nn.Identity()"])
