r"""A backbone's weights in the layout of another project, bit by bit the same numbers.

To ours, from whatever the source is (a folder then works as weights=r50 in every command):

    python extra_scripts/convert_weights.py swav_800ep_pretrain.pth.tar r50 --backbone resnet50
    python extra_scripts/convert_weights.py dino_resnet50_pretrain.pth r50 --backbone resnet50
    python extra_scripts/convert_weights.py moco_v2_800ep_pretrain.pth.tar r50 --backbone resnet50
    python extra_scripts/convert_weights.py model_final_checkpoint_phase999.torch r50 \
        --backbone resnet50 --from vissl
    python extra_scripts/convert_weights.py alexnet.pth.tar net --backbone alexnet_sobel
    python extra_scripts/convert_weights.py mine.pth wide --backbone resnet50 backbone.width=2

From ours, or from any of the others with --backbone:

    python extra_scripts/convert_weights.py runs/mine r50.pth --to torchvision
    python extra_scripts/convert_weights.py runs/mine r50.safetensors --to timm
    python extra_scripts/convert_weights.py runs/mine r50_detectron2.pth --to detectron2
    python extra_scripts/convert_weights.py runs/mine r50.pth.tar --to swav
    python extra_scripts/convert_weights.py runs/mine r50.pth.tar --to deepcluster_v2
    python extra_scripts/convert_weights.py runs/mine r50.pth --to dino
    python extra_scripts/convert_weights.py runs/mine r50.pth.tar --to moco
    python extra_scripts/convert_weights.py runs/mine r50.torch --to vissl
    python extra_scripts/convert_weights.py runs/alexnet net.pth.tar --to deepcluster

The source is a run, one of its checkpoints, a folder that this made, or a file (.safetensors, or
torch.save's, which is read as data; a .pkl is not). Its layout is found out unless --from names it;
heads are left out. Every tensor of the backbone must be there with its shape, or nothing is written
and what is missing is listed; what is no part of it is refused too. Ours is a folder of
backbone.safetensors and backbone.json, or a .safetensors file with such a .json beside it. The mean
and standard deviation that it says are the run's, or those of SwAV's code for its layout and for
DeepCluster-v2's (give --from where a file has no head to tell them by), or else ImageNet's. An
existing target is kept unless --overwrite.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlabeled.cli.script import run_script
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig, Normalization
from unlabeled.data.whole_files import write_file
from unlabeled.engine.stored_backbones import backbone_state
from unlabeled.errors import CheckpointError, ConfigError
from unlabeled.evaluation.subject import IMAGENET, run_config, run_of
from unlabeled.models.backbone_cards import WEIGHTS_NAME, Card, card_of, read_card, write_card
from unlabeled.models.backbone_files import PICKLED, load_into, read_weights, write_state
from unlabeled.models.key_maps import LAYOUTS, find_backbone
from unlabeled.registry import Component

IMAGE_SIZE = 224
"""Of the training crops of all published weights."""
# The official code of both has 0.228 for red, where all others have 0.229.
SWAV = Normalization(mean=IMAGENET.mean, std=(0.228, 0.224, 0.225))
NORMALIZATIONS = {"swav": SWAV, "deepcluster_v2": SWAV}
"""By the layout of the source, where it says nothing itself."""


def known_of(source: str) -> Card | None:
    """What the run that the source belongs to says, or the page beside weights of ours."""
    run = run_of(source)
    if run is None:
        return read_card(Path(source).expanduser())
    config = run_config(run)
    sides = [view.size for view in config.transform.build().views]
    return Card(config.backbone, config.normalization, max(sides))


def architecture(
    source: str, known: Card | None, name: str | None, overrides: list[str]
) -> Component:
    """The backbone that --backbone and its overrides describe, or else the one that is known."""
    if name is not None:
        told = compose_config("evaluate", ["weights=random", f"backbone={name}", *overrides])
        component = build_config(EvaluateConfig, told.data, told.problems).backbone
        assert component is not None
        return component
    if known is None:
        raise ConfigError(
            f"{source} does not say its architecture; give --backbone, e.g. --backbone resnet50 "
            "(see `unlabeled list backbone` and configs/backbone/)"
        )
    if overrides:
        raise ConfigError(f"{overrides[0]}: settings of the backbone need --backbone")
    return known.architecture


def found(source: Path, backbone: nn.Module, layout: str) -> tuple[str, dict[str, Tensor]]:
    """The layout of the source and the backbone's tensors by our names."""
    if not source.exists():
        raise CheckpointError(f"{source} does not exist; give a run, a checkpoint or a file")
    if source.is_dir():
        return "own", backbone_state(source, backbone)
    among = list(LAYOUTS) if layout == "auto" else [layout]
    return find_backbone(read_weights(source), backbone, origin=str(source), among=among)


def save(target: Path, content: dict[str, Any]) -> None:
    """Write the content in the kind of file that the target's name asks for."""
    if target.suffix == ".safetensors":
        write_state(target, content)
    else:
        write_file(target, lambda file: torch.save(content, file))


def checked_target(target: Path, layout: str, overwrite: bool) -> Path:
    """The file to write; ConfigError if it cannot hold the layout or is there already."""
    if layout == "own" and (target.is_dir() or not target.suffix):
        target = target / WEIGHTS_NAME
    accepted = [*([".safetensors"] if LAYOUTS[layout].flat else []), *PICKLED]
    if target.suffix not in accepted:
        folder = " or, for a folder, has no dot" if layout == "own" else ""
        raise ConfigError(
            f"{target}: for {layout}, give a name that ends in {', '.join(accepted)}{folder}"
        )
    for path in (target, *([card_of(target)] if described_beside(target, layout) else [])):
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} is there already; give another name or --overwrite")
    return target


def described_beside(target: Path, layout: str) -> bool:
    """Whether a page says what the file is."""
    return layout == "own" and target.suffix == ".safetensors"


def detectron2_settings(normalization: Normalization) -> str:
    """What Detectron2 must be told to see the images as the backbone did."""
    mean, std = ([round(255 * x, 3) for x in v] for v in (normalization.mean, normalization.std))
    return (
        "in Detectron2: MODEL.RESNETS.STRIDE_IN_1X1 False INPUT.FORMAT RGB "
        f"MODEL.PIXEL_MEAN {mean} MODEL.PIXEL_STD {std}".replace(", ", ",")
    )


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="run, checkpoint or file")
    parser.add_argument("target", type=Path, help="file, or for ours a folder, to write")
    parser.add_argument("overrides", nargs="*", help="settings of the backbone: backbone.KEY=VALUE")
    parser.add_argument(
        "--from", dest="origin", choices=["auto", *LAYOUTS], default="auto", help="layout (auto)"
    )
    parser.add_argument("--to", choices=list(LAYOUTS), default="own", help="layout to write (own)")
    parser.add_argument("--backbone", help="a name in configs/backbone; not needed for a run")
    parser.add_argument("--overwrite", action="store_true", help="replace the target")
    return parser.parse_intermixed_args()


def main() -> None:
    """Read, check, write, say what was done."""
    given = parsed()
    target = checked_target(given.target.expanduser(), given.to, given.overwrite)
    known = known_of(given.source)
    component = architecture(given.source, known, given.backbone, given.overrides)
    backbone: nn.Module = component.build()
    layout, state = found(Path(given.source).expanduser(), backbone, given.origin)
    load_into(backbone, state, origin=given.source)
    save(target, LAYOUTS[given.to].content(state))
    seen = known.normalisation if known else NORMALIZATIONS.get(layout, IMAGENET)
    numbers = sum(tensor.numel() for tensor in state.values())
    print(f"{layout} -> {given.to}: {len(state)} tensors, {numbers:,} numbers, in {target}")
    if described_beside(target, given.to):
        side = known.image_size if known else IMAGE_SIZE
        write_card(target, backbone, component, mean=seen.mean, std=seen.std, image_size=side)
        folder = target.parent if target.name == WEIGHTS_NAME else target
        print(f"use it: unlabeled evaluate benchmark=knn weights={folder} dataset=...")
    if given.to == "detectron2":
        print(detectron2_settings(seen))


if __name__ == "__main__":
    run_script(main, stopped="stopped; nothing was written")
