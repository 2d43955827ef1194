"""RegNets from the parameters of their design space, with torchvision's parameter names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torchvision.models.regnet
from torch import Tensor, nn
from torchvision.models.regnet import BlockParams

from unlabeled.config.ranges import at_least
from unlabeled.registry import register


@register("backbone", "regnet")
class RegNet(torchvision.models.regnet.RegNet):
    """RegNetY with global average pooling: images [B, 3, h, w] -> features [B, last stage's width].

    Block j has width w0 wm^round(log(1 + j wa / w0) / log wm), rounded to a multiple of 8; equal
    neighbours form a stage, whose width is then made a multiple of the group width.
    Any image size is accepted.
    Reference: Radosavovic et al. 2020, arXiv 2003.13678; SEER: Goyal et al. 2021, arXiv 2103.01988.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the backbone; the defaults are RegNetY-16GF."""

        depth: int = 18
        """Blocks in all."""
        w0: int = 200
        """Initial width, a multiple of 8."""
        wa: float = 106.23
        """Growth of the width per block."""
        wm: float = 2.48
        """Ratio of the widths of neighbouring stages."""
        group_width: int = 112
        """Channels of a group in the 3x3 convolutions."""
        se_ratio: float = 0.25
        """Squeeze-excitation width per width of the block's input (RegNetY: 0.25; RegNetX: 0)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from at_least(self, 1, "depth", "group_width")
            yield from at_least(self, 0, "wa")
            if self.w0 < 8 or self.w0 % 8:
                yield "w0", f"must be a positive multiple of 8, got {self.w0}"
            if self.wm <= 1:
                yield "wm", f"must be above 1, got {self.wm}"
            if not 0 <= self.se_ratio <= 1:
                yield "se_ratio", f"must lie in [0, 1], got {self.se_ratio}"

    def __init__(self, config: Config) -> None:
        stages = block_params(config)
        super().__init__(stages, num_classes=1)
        self.feature_dim: int = stages.widths[-1]
        self.fc = nn.Identity()
        self.how_to_load = (
            "import torch\n"
            "from torchvision.models.regnet import BlockParams, RegNet\n"
            f"m = RegNet(BlockParams.from_init_params(depth={config.depth}, w_0={config.w0}, "
            f"w_a={config.wa}, w_m={config.wm}, group_width={config.group_width}, "
            f"se_ratio={config.se_ratio}))\n"
            "m.fc = torch.nn.Identity()"
        )

    def feature_map(self, images: Tensor) -> Tensor:
        """The last stage's map [B, feature_dim, h, w], which pooling averages."""
        last: Tensor = self.trunk_output(self.stem(images))
        return last


def block_params(config: RegNet.Config) -> BlockParams:
    """Widths, depths, strides and groups of the stages."""
    # torchvision computes them with tensors and reads these, which the meta device cannot do.
    with torch.device("cpu"):
        return BlockParams.from_init_params(
            depth=config.depth,
            w_0=config.w0,
            w_a=config.wa,
            w_m=config.wm,
            group_width=config.group_width,
            se_ratio=config.se_ratio,
        )
