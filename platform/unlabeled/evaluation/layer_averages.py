"""Features of several layers of a backbone in one forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unlabeled.errors import ConfigError

OUTPUT = "output"
"""The name of what the backbone itself returns."""


class LayerAverages:
    """images [B, 3, h, w] -> {layer: float32 [B, D_layer]}, in the order of `names`.

    `output` is what the backbone returns; every other name is a module of it, as in
    `backbone.get_submodule(name)`. Maps [B, C, h, w] are averaged over their positions, sequences
    [B, T, C] over their tokens, rows [B, D] stay as they are; of a module that is called several
    times in a pass the last call counts. The backbone has been put into evaluation mode by the
    caller; no gradient flows. ConfigError for a name that is no module, and for a module that gives
    something else or takes no part.
    """

    def __init__(self, backbone: nn.Module, names: Sequence[str]) -> None:
        self._backbone, self._names = backbone, list(names)
        self._found: dict[str, Tensor] = {}
        modules = dict(backbone.named_modules())
        for name in self._names:
            if name != OUTPUT:
                if not name or name not in modules:
                    raise ConfigError(_unknown(name, list(modules)))
                modules[name].register_forward_hook(self._keeper(name))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        self._found.clear()
        output = self._backbone(images)
        if OUTPUT in self._names:
            self._found[OUTPUT] = pooled(OUTPUT, output)
        for name in self._names:
            if name not in self._found:
                raise ConfigError(f"layers: {name} takes no part in the forward pass; leave it out")
        return {name: self._found[name] for name in self._names}

    def _keeper(self, name: str) -> Any:
        # Pooled at once: an activation that works in place would overwrite the map after the hook.
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._found[name] = pooled(name, output)

        return keep


def pooled(name: str, output: Any) -> Tensor:
    """One row an image, float32 and of its own memory: [B, ...] -> [B, D]."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(
            f"layers: {name} gives {what}; features are made of rows [B, D], tokens [B, T, C] or "
            "maps [B, C, h, w]"
        )
    values = output.float()
    if values.ndim == 4:
        return values.mean(dim=(2, 3))
    return values.mean(dim=1) if values.ndim == 3 else values.clone()


def _unknown(name: str, modules: list[str]) -> str:
    known = [OUTPUT, *(each for each in modules if each)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    top = [each for each in known if "." not in each]
    return f"layers: the backbone has no module {name!r}.{hint} At its top: {', '.join(top)}"
