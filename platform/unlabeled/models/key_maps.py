"""Where other projects keep a backbone in their files, and how they name its tensors.

Our names are torchvision's, and DINO's for vision transformers. A layout says where the mapping of
names to tensors lies in a file, what stands before every name, and how names are spelled; it is
data and pure functions, and takes no part in reading or writing files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unlabeled.errors import CheckpointError
from unlabeled.models import regnet_names
from unlabeled.models.vit_names import from_torchvision, to_torchvision

Rename = Callable[[str], str | None]
"""A name in other words; None for a tensor that is no part of a backbone."""

Nest = tuple[str, ...]
"""The keys that lead from the whole content of a file to a mapping of names to tensors."""


def as_it_is(name: str) -> str:
    """Our own names."""
    return name


@dataclass(frozen=True)
class Layout:
    """How a project writes a backbone.

    nests and prefixes: the first ones are written; all are read, nests in this order and the
    longest prefix first. further: prefixes of parts that lie elsewhere in the same file. others:
    what names of heads begin with, behind the prefix. beside: entries of the file that its readers
    expect.
    """

    nests: tuple[Nest, ...] = ((),)
    prefixes: tuple[str, ...] = ("",)
    further: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    to_own: Rename = as_it_is
    from_own: Rename = as_it_is
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def flat(self) -> bool:
        """Whether the file is nothing but names and tensors."""
        return not self.nests[0] and not self.beside

    def backbone(self, content: Mapping[str, Any]) -> dict[str, Tensor]:
        """The backbone's tensors by our names; empty if the content is not of this layout."""
        tensors = next(filter(None, (_inside(content, nest) for nest in self.nests)), {})
        for prefix in sorted(self.prefixes, key=len, reverse=True):
            found = self._below(prefix, tensors)
            if found:
                for other in self.further:
                    found |= self._below(other, tensors)
                return found
        return {}

    def _below(self, prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, tensor in tensors.items():
            short = name.removeprefix(prefix)
            if name.startswith(prefix) and not short.startswith(self.others):
                own = self.to_own(short)
                if own is not None:
                    found[own] = tensor
        return found

    def content(self, backbone: Mapping[str, Tensor]) -> dict[str, Any]:
        """What a file of this layout holds for a backbone with our names.

        CheckpointError for a tensor that has no name there.
        """
        renamed: dict[str, Any] = {}
        for name, tensor in backbone.items():
            other = self.from_own(name)
            if other is None:
                raise CheckpointError(f"{name} has no name in this layout, which is for ResNets")
            renamed[self.prefixes[0] + other] = tensor
        for key in reversed(self.nests[0]):
            renamed = {key: renamed}
        return {**renamed, **self.beside}


def _inside(content: Any, nest: Nest) -> dict[str, Tensor]:
    for key in nest:
        content = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _detectron2(name: str) -> str | None:
    """layer1.0.bn2.bias -> res2.0.conv2.norm.bias, and so on."""
    stem = re.fullmatch(r"(conv1|bn1)\.(\w+)", name)
    if stem:
        return f"stem.conv1.{'norm.' if stem[1] == 'bn1' else ''}{stem[2]}"
    block = re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(\w+)", name)
    if not block:
        return None
    stage, number, kind, place, rest = block.groups()
    if kind == "downsample.":
        layer, norm = "shortcut", place == "1"
    else:
        layer, norm = f"conv{place}", kind == "bn"
    return f"res{int(stage) + 1}.{number}.{layer}.{'norm.' if norm else ''}{rest}"


def _from_detectron2(name: str) -> str | None:
    """The inverse of `_detectron2`."""
    stem = re.fullmatch(r"stem\.conv1\.(norm\.)?(\w+)", name)
    if stem:
        return f"{'bn1' if stem[1] else 'conv1'}.{stem[2]}"
    block = re.fullmatch(r"res(\d)\.(\d+)\.(?:conv(\d)|shortcut)\.(norm\.)?(\w+)", name)
    if not block:
        return None
    stage, number, place, norm, rest = block.groups()
    if place is None:
        layer = f"downsample.{1 if norm else 0}"
    else:
        layer = f"{'bn' if norm else 'conv'}{place}"
    return f"layer{int(stage) - 1}.{number}.{layer}.{rest}"


def _deepcluster(name: str) -> str | None:
    """features.0.weight -> features.module.0.weight, fully_connected -> classifier."""
    if name.startswith("features."):
        return name.replace("features.", "features.module.", 1)
    return re.sub(r"^fully_connected\.", "classifier.", name)


def _from_deepcluster(name: str) -> str | None:
    """The inverse of `_deepcluster`, for networks that were not wrapped too."""
    return re.sub(
        r"^classifier\.", "fully_connected.", name.replace("features.module.", "features.")
    )


_DATA_PARALLEL = "module."
_CLASSIFIERS = ("fc.", "head.", "heads.", "classifier.")

LAYOUTS: dict[str, Layout] = {
    # Flat, our names: what `weights/backbone.safetensors` of a run holds.
    "own": Layout(),
    "torchvision": Layout(
        nests=((), ("model",), ("state_dict",)),
        prefixes=("", _DATA_PARALLEL),
        others=_CLASSIFIERS,
        to_own=from_torchvision,
        from_own=to_torchvision,
    ),
    # timm names ResNets as torchvision does, vision transformers as DINO does, and RegNets by
    # names of its own.
    "timm": Layout(
        nests=((), ("state_dict",), ("model",)),
        prefixes=("", _DATA_PARALLEL),
        others=_CLASSIFIERS,
        to_own=regnet_names.from_timm,
        from_own=regnet_names.to_timm,
    ),
    # facebookresearch/swav, published weights and checkpoints, for main_swav.py ...
    "swav": Layout(
        nests=((), ("state_dict",)),
        prefixes=(_DATA_PARALLEL, ""),
        others=("projection_head.", "prototypes."),
    ),
    # ... and main_deepclusterv2.py, which writes the same but for several sets of prototypes.
    "deepcluster_v2": Layout(
        nests=((), ("state_dict",)),
        prefixes=(_DATA_PARALLEL, ""),
        others=("projection_head.", "prototypes."),
    ),
    # facebookresearch/dino: the teacher is what is evaluated; networks with batch norm are wrapped,
    # and the student of a ViT is.
    "dino": Layout(
        nests=(("teacher",), ("student",), ()),
        prefixes=("module.backbone.", "backbone.", _DATA_PARALLEL, ""),
        others=_CLASSIFIERS,
    ),
    # facebookresearch/moco, whose query encoder is what is evaluated, and moco-v3.
    "moco": Layout(
        nests=(("state_dict",), ()),
        prefixes=("module.encoder_q.", "encoder_q.", "module.base_encoder.", "base_encoder."),
        others=_CLASSIFIERS,
    ),
    # facebookresearch/vissl (ClassyVision's checkpoints).
    "vissl": Layout(
        nests=(("classy_state_dict", "base_model", "model", "trunk"), ("model_state_dict",), ()),
        prefixes=(
            "_feature_blocks.",
            "trunk._feature_blocks.",
            "trunk.base_model._feature_blocks.",
        ),
        to_own=regnet_names.from_vissl,
        from_own=regnet_names.to_vissl,
    ),
    # facebookresearch/deepcluster, AlexNet and VGG-16: the convolutions alone are wrapped. Sobel's
    # filters are constants, and the classifier's clusters are those of the last epoch.
    "deepcluster": Layout(
        nests=(("state_dict",), ()),
        others=("top_layer.", "sobel."),
        to_own=_from_deepcluster,
        from_own=_deepcluster,
    ),
    # Initial weights, whose names are matched by their ends, and Detectron2's own FPN checkpoints.
    "detectron2": Layout(
        nests=(("model",), ()),
        prefixes=("", "backbone.bottom_up.", "backbone."),
        further=("roi_heads.",),  # where a trained C4 detector has its last stage
        to_own=_from_detectron2,
        from_own=_detectron2,
        beside={"__author__": "unlabeled", "matching_heuristics": True},
    ),
}


def matching(state: Mapping[str, Tensor], backbone: nn.Module) -> int:
    """How many of the backbone's tensors have a counterpart of their name and shape."""
    own = backbone.state_dict()
    return sum(name in state and state[name].shape == own[name].shape for name in own)


def find_backbone(
    content: Any, backbone: nn.Module, *, origin: str, among: Sequence[str] = tuple(LAYOUTS)
) -> tuple[str, dict[str, Tensor]]:
    """The layout that fits the content of a file best, and the backbone's tensors by our names.

    Best is where most of the backbone's tensors are found, then where the fewest others are, then
    the first. Nothing is said of tensors that are missing: `load_into` refuses them.
    CheckpointError if none is found; `origin` is the file, for the message.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{origin}: expected names and tensors, got {type(content).__name__}")
    found = {name: LAYOUTS[name].backbone(content) for name in among}
    best = max(found, key=lambda name: (matching(found[name], backbone), -len(found[name])))
    if matching(found[best], backbone) == 0 and backbone.state_dict():
        entries = [str(entry) for entry in content]
        raise CheckpointError(
            f"{origin} holds no tensor of the backbone ({type(backbone).__name__}) under a name of "
            f"{', '.join(among)}; its entries: {', '.join(entries[:8])}"
            f"{', ...' if len(entries) > 8 else ''}"
        )
    return best, with_counters(found[best], backbone)


def with_counters(state: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """The state in the backbone's order, with zeros for step counters of batch norms it lacks.

    Files older than torch 0.4.1, and those from other libraries, have no `num_batches_tracked`;
    nothing reads it where the momentum is a number.
    """
    completed = dict(state)
    for name in backbone.state_dict():
        if name.endswith(".num_batches_tracked") and name not in state:
            completed[name] = torch.tensor(0)
    order = {name: place for place, name in enumerate(backbone.state_dict())}
    return dict(sorted(completed.items(), key=lambda item: order.get(item[0], len(order))))
