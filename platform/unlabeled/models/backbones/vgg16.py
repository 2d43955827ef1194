"""VGG-16 with batch normalisation, as DeepCluster and DeeperCluster train it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from unlabeled.models.backbones.convolution_stack import (
    ConvolutionStack,
    input_channels,
    normalised_convolution,
    scaled,
    stack_problems,
)
from unlabeled.registry import register

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each stage, which a max-pool of 2 with stride 2 ends."""


@register("backbone", "vgg16")
class VGG16(ConvolutionStack):
    """Thirteen convolutions and two linear layers: images [B, 3, h, w] -> [B, hidden_dim].

    3x3 convolutions with batch normalisation and ReLU in five stages of 64 to 512 channels, each
    ended by a max-pool; then fc6, ReLU, dropout, fc7. Features are what fc7 gives before its ReLU.
    134.3 M parameters, the convolutions named as torchvision's vgg16_bn. Images of 32 px and more
    are taken, or of 2^stages px; the grid makes their features of one length.
    Reference: Simonyan and Zisserman 2015, configuration D; Caron et al. 2018; `models/vgg16.py`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the backbone."""

        sobel: bool = False
        """Read Sobel's slopes of the grey image in place of the colours (DeepCluster: true)."""
        width: float = 1.0
        """Multiplier of the channels of all convolutions."""
        stages: Literal[1, 2, 3, 4, 5] = 5
        """How many of the five stages to keep, from the first; fewer for small images."""
        grid: int = 7
        """Side of the map that the linear layers read; images of 224 px have 7 by themselves."""
        hidden_dim: int = 4096
        """Width of fc6 and fc7; 0 leaves both out, and features are the grid's numbers."""
        dropout: float = 0.5
        """Chance of a number to be zero in training, between the linear layers."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from stack_problems(self.width, 64, self.grid, self.hidden_dim, self.dropout)

    def __init__(self, config: Config) -> None:
        layers: list[nn.Module] = []
        before = input_channels(config.sobel)
        for base, convolutions in STAGES[: config.stages]:
            for _ in range(convolutions):
                layers += normalised_convolution(before, scaled(base, config.width), kernel=3)
                before = scaled(base, config.width)
            layers.append(nn.MaxPool2d(2, stride=2))
        hidden, fully_connected = config.hidden_dim, list[nn.Module]()
        if hidden:
            fully_connected = [
                nn.Linear(before * config.grid**2, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(config.dropout),
                nn.Linear(hidden, hidden),
            ]
        super().__init__(
            nn.Sequential(*layers),
            nn.Sequential(*fully_connected),
            grid=config.grid,
            edges=config.sobel,
        )
