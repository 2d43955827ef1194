"""AlexNet with batch normalisation, as DeepCluster and RotNet train it."""

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

CHANNELS = (96, 256, 384, 384, 256)
KERNELS = (11, 5, 3, 3, 3)
POOLED = (0, 1, 4)
"""The convolutions behind which a max-pool of 3 with stride 2 follows."""


@register("backbone", "alexnet")
class AlexNet(ConvolutionStack):
    """Five convolutions and two linear layers: images [B, 3, h, w] -> features [B, hidden_dim].

    Convolutions of 96, 256, 384, 384 and 256 channels, each with batch normalisation and ReLU,
    max-pools behind the first, second and fifth; then dropout, fc6, ReLU, dropout, fc7. Features
    are what fc7 gives before its ReLU, 4096 numbers, which DeepCluster clusters. 58.3 M parameters.
    Images of 63 px and more are taken, of 15 px and more with the small stem; the grid makes their
    features of one length. The maps behind the ReLUs of conv1 to conv5 are `features.2`, `.6`,
    `.10`, `.13` and `.16`.
    Reference: Krizhevsky et al. 2012; Caron et al. 2018, section 4; `models/alexnet.py`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the backbone."""

        sobel: bool = False
        """Read Sobel's slopes of the grey image in place of the colours (DeepCluster: true)."""
        width: float = 1.0
        """Multiplier of the channels of all convolutions."""
        stem: Literal["imagenet", "small"] = "imagenet"
        """conv1: 11x11 stride 4; small: 5x5 stride 1, for images of about 32 px."""
        grid: int = 6
        """Side of the map that the linear layers read; images of 224 px have 6 by themselves."""
        hidden_dim: int = 4096
        """Width of fc6 and fc7; 0 leaves both out, and features are the grid's numbers."""
        dropout: float = 0.5
        """Chance of a number to be zero in training, before each linear layer."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from stack_problems(self.width, 32, self.grid, self.hidden_dim, self.dropout)

    def __init__(self, config: Config) -> None:
        layers: list[nn.Module] = []
        before = input_channels(config.sobel)
        for number, (base, kernel) in enumerate(zip(CHANNELS, KERNELS, strict=True)):
            channels, stride = scaled(base, config.width), 1
            if number == 0:
                kernel, stride = (11, 4) if config.stem == "imagenet" else (5, 1)
            layers += normalised_convolution(before, channels, kernel, stride)
            if number in POOLED:
                layers.append(nn.MaxPool2d(3, stride=2))
            before = channels
        hidden, fully_connected = config.hidden_dim, list[nn.Module]()
        if hidden:
            fully_connected = [
                nn.Dropout(config.dropout),
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
