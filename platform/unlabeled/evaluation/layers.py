"""Features of several layers of a backbone, taken in one forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.errors import ConfigError

Shape = tuple[int, int, int]
"""Channels, height and width of a pooled map."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer that a linear classifier reads, and how its map is pooled."""

    module: str
    """Name of a submodule whose output is [B, C, h, w] or [B, C]; of several modules that end in
    this name, the one that lies least deep."""
    pool: int | tuple[int, int, int]
    """Average pooling: the side that is left (1: global; a smaller map stays as it is), for images
    of any size, or window, stride and padding."""
    batch_norm: bool
    """Batch normalisation of every channel, affine, before the classifier (VISSL: eval_mlp)."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Ranges."""
        if isinstance(self.pool, int):
            if self.pool < 1:
                yield "pool", f"must leave a side of 1 or more, got {self.pool}"
            return
        window, stride, padding = self.pool
        if min(window, stride) < 1 or not 0 <= 2 * padding <= window:
            yield (
                "pool",
                "needs a window and a stride of 1 or more and a padding of at most half the "
                f"window, got {list(self.pool)}",
            )


class Taps:
    """What several layers say about images: an encoder whose features are all their pooled maps.

    images [B, 3, size, size] -> [B, sum of C*h*w], layer after layer. Nothing of the backbone
    changes; it is expected in evaluation mode on `device`. A module that runs several times in a
    forward pass counts with its last output. ConfigError, by the layer's key, for a module that
    the backbone does not have or does not run, an output that is no map, and pooling that does not
    fit it.
    """

    def __init__(
        self, backbone: nn.Module, layers: Mapping[str, Layer], *, size: int, device: torch.device
    ) -> None:
        self._backbone, self._layers = backbone, layers
        self._modules = {key: _submodule(backbone, key, layer) for key, layer in layers.items()}
        with torch.no_grad():
            trial = self._pooled(torch.zeros(1, 3, size, size, device=device))
        self.shapes: dict[str, Shape] = {
            key: (maps.shape[1], maps.shape[2], maps.shape[3]) for key, maps in trial.items()
        }
        self.feature_dim = sum(maps.numel() for maps in trial.values())

    def __call__(self, images: Tensor) -> Tensor:
        maps = self._pooled(images).values()
        return torch.cat([layer.float().flatten(1) for layer in maps], dim=1)

    def split(self, features: Tensor) -> dict[str, Tensor]:
        """The maps [B, C, h, w] of every layer, from features [B, feature_dim]."""
        widths = [channels * height * width for channels, height, width in self.shapes.values()]
        parts = torch.split(features, widths, dim=1)
        return {
            key: part.reshape(len(part), *self.shapes[key])
            for key, part in zip(self.shapes, parts, strict=True)
        }

    def _pooled(self, images: Tensor) -> dict[str, Tensor]:
        """The maps of all layers, in the order of `layers`, not of the network."""
        pooled: dict[str, Tensor] = {}
        hooks = [
            # Pooled at once: later layers may work in place, and whole maps would fill the memory.
            module.register_forward_hook(partial(_keep, pooled, key, self._layers[key]))
            for key, module in self._modules.items()
        ]
        try:
            self._backbone(images)
        finally:
            for hook in hooks:
                hook.remove()
        for key in self._layers:
            if key not in pooled:
                raise _fault(key, "module", f"{self._layers[key].module!r} is never run")
        return {key: pooled[key] for key in self._layers}


def _fault(key: str, field: str, message: str) -> ConfigError:
    place = f"layers.{key}" if key else "layer"  # one alone has no key
    return ConfigError(f"benchmark.{place}.{field}: {message}")


def _submodule(backbone: nn.Module, key: str, layer: Layer) -> nn.Module:
    names = [name for name, _ in backbone.named_modules() if name]
    found = [name for name in names if f".{name}".endswith(f".{layer.module}")]
    if not found:
        close = difflib.get_close_matches(layer.module, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        shallow = ", ".join(name for name in names if name.count(".") <= 1)[:400]
        raise _fault(
            key,
            "module",
            f"the backbone has no module {layer.module!r}.{hint} Among others it has: {shallow}",
        )
    depth = min(name.count(".") for name in found)
    first = [name for name in found if name.count(".") == depth]
    if len(first) > 1:
        raise _fault(key, "module", f"{layer.module!r} may be any of {', '.join(first)}; say which")
    return backbone.get_submodule(first[0])


def _keep(
    pooled: dict[str, Tensor], key: str, layer: Layer, module: nn.Module, inputs: Any, output: Any
) -> None:
    """A forward hook that pools a layer's output."""
    if isinstance(output, Tensor) and output.ndim == 2:
        output = output[:, :, None, None]
    if not isinstance(output, Tensor) or output.ndim != 4:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise _fault(
            key, "module", f"the output of {layer.module!r} is no map [B, C, h, w], but {shape}"
        )
    height, width = output.shape[2:]
    if isinstance(layer.pool, int):
        pooled[key] = F.adaptive_avg_pool2d(
            output, (min(layer.pool, height), min(layer.pool, width))
        )
        return
    window, stride, padding = layer.pool
    if window > min(height, width) + 2 * padding:
        raise _fault(
            key,
            "pool",
            f"a window of {window} is larger than the map of {height} x {width}; for these images "
            "give the side that pooling leaves, or try benchmark=linear_layers_small",
        )
    pooled[key] = F.avg_pool2d(output, window, stride, padding)
