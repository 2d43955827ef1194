"""Convolutions one after the other, then fully connected layers: the networks before ResNets.

Parameters are named as in the official DeepCluster code, but for `fully_connected`, its classifier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from unlabeled.errors import ConfigError
from unlabeled.models import sobel


class ConvolutionStack(nn.Module):
    """Images [B, 3, h, w] -> features [B, feature_dim]: convolutions, a grid, linear layers.

    maps = features(images), averaged adaptively to grid x grid positions and flattened; then the
    fully connected layers, the last one without an activation. Without any, the flattened grid is
    the result. With `edges`, the convolutions see Sobel's two slopes in place of the colours.
    Initialisation: convolutions N(0, 2 / (k k out)), linear layers N(0, 0.01), biases 0, batch norm
    1 and 0. ConfigError for images that pooling would leave nothing of.
    Reference: Caron et al. 2018, section 4; `models/` of the official code.
    """

    def __init__(
        self, features: nn.Sequential, fully_connected: nn.Sequential, *, grid: int, edges: bool
    ) -> None:
        super().__init__()
        self.sobel = sobel.Sobel() if edges else None
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.flatten = nn.Flatten()
        self.fully_connected = fully_connected
        linear = [m for m in fully_connected if isinstance(m, nn.Linear)]
        channels = [m for m in features if isinstance(m, nn.Conv2d)][-1].out_channels
        self.feature_dim: int = linear[-1].out_features if linear else channels * grid**2
        self.smallest = smallest_side(features)
        self._initialise()
        self.how_to_load = loading_code(self)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.feature_map(images)
        if maps.shape[2:] != (self.pool.output_size, self.pool.output_size):
            maps = self.pool(maps)  # its gradient adds in no fixed order on a GPU
        features: Tensor = self.fully_connected(self.flatten(maps))
        return features

    def feature_map(self, images: Tensor) -> Tensor:
        """The map [B, C, h, w] behind the last max-pool."""
        if min(images.shape[2:]) < self.smallest:
            raise ConfigError(
                f"images of {images.shape[2]} x {images.shape[3]} px leave nothing after the last "
                f"max-pool of {type(self).__name__}, which takes {self.smallest} px at least; give "
                "larger views, or a backbone for small ones (alexnet_small, vgg16_small)"
            )
        maps: Tensor = self.features(images if self.sobel is None else self.sobel(images))
        return maps


def normalised_convolution(
    before: int, channels: int, kernel: int, stride: int = 1
) -> tuple[nn.Module, ...]:
    """A convolution with bias that keeps positions at stride 1, batch norm and ReLU."""
    padding = 2 if kernel == 11 else kernel // 2
    convolution = nn.Conv2d(before, channels, kernel, stride=stride, padding=padding)
    return convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def input_channels(edges: bool) -> int:
    """What the first convolution reads: two slopes, or three colours."""
    return sobel.CHANNELS if edges else 3


def scaled(channels: int, width: float) -> int:
    """Channels of a layer for a width multiplier."""
    return int(channels * width)


def stack_problems(
    width: float, narrowest: int, grid: int, hidden_dim: int, dropout: float
) -> Iterator[tuple[str, str]]:
    """Faults of the fields that both networks have; `narrowest`: what divides all channels."""
    if width <= 0 or narrowest * width != int(narrowest * width):
        yield (
            "width",
            f"must be positive and a multiple of 1/{narrowest} (a whole number of channels), got "
            f"{width}; use 1, or 0.25 for a small run",
        )
    if grid < 1:
        yield "grid", f"must be at least 1, got {grid}"
    if hidden_dim < 0:
        yield "hidden_dim", f"must be 0 (no fully connected layers) or more, got {hidden_dim}"
    if not 0 <= dropout < 1:
        yield "dropout", f"must lie in [0, 1), got {dropout}"


def smallest_side(features: nn.Sequential) -> int:
    """The least height and width of images of which one position is left at the end."""
    side = 1
    for module in reversed(features):
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = (
                value if isinstance(value, int) else int(value[0])
                for value in (module.kernel_size, module.stride, module.padding)
            )
            side = max(1, (side - 1) * stride + kernel - 2 * padding)
    return side


def loading_code(model: ConvolutionStack) -> str:
    """Python that rebuilds `model` as `m` with torch alone; see `how_to_load`."""

    def spelled(module: nn.Module) -> str:
        # What torch prints of a batch norm names arguments that older versions do not have.
        norm = isinstance(module, nn.BatchNorm2d)
        return f"nn.BatchNorm2d({module.num_features})" if norm else f"nn.{module}"

    def sequence(modules: nn.Sequential) -> str:
        return f"nn.Sequential({', '.join(spelled(module) for module in modules)})"

    lines = [
        "import torch",
        "from torch import nn",
        "m = nn.Sequential()",
        f"m.add_module('features', {sequence(model.features)})",
        f"m.add_module('pool', nn.{model.pool})",
        f"m.add_module('flatten', nn.{model.flatten})",
        f"m.add_module('fully_connected', {sequence(model.fully_connected)})",
    ]
    if model.sobel is not None:
        horizontal = torch.tensor(sobel.HORIZONTAL, device="cpu")
        filters = [[horizontal.tolist()], [horizontal.T.tolist()]]
        lines += [
            f"slopes = torch.tensor({filters})",
            "m.register_forward_pre_hook(lambda _, images: nn.functional.conv2d("
            "images[0].mean(1, keepdim=True), slopes, padding=1))",
        ]
    return "\n".join(lines)
