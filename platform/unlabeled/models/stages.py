"""The parts of a backbone that run one after the other."""

from __future__ import annotations

from torch import nn

MOST = 0.9


def stages(backbone: nn.Module) -> list[nn.Module]:
    """The modules between which a backbone can be cut: sharded, or computed again in backward.

    The children that hold parameters of two dimensions or more; where nearly all of these lie in
    one sequence of modules, its members instead. So layer1 to layer4 of a ResNet, block1 to block4
    of a RegNet and the blocks of a vision transformer. The single layers of a stem are none.
    """
    total = _weights(backbone)
    parts = [child for child in backbone.children() if _weights(child) and any(child.children())]
    for part in parts:
        if isinstance(part, nn.Sequential | nn.ModuleList) and _weights(part) > MOST * total:
            return [member for member in part if _weights(member)]
    return [part for part in parts if not isinstance(part, nn.ModuleList)]  # nobody calls those


def _weights(module: nn.Module) -> int:
    """Numbers in its parameters of two dimensions or more."""
    return sum(p.numel() for p in module.parameters() if p.ndim > 1)
