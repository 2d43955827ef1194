"""A backbone's weights in the layout of another project, bit by bit the same numbers.

    python extra_scripts/convert_weights.py swav_800ep_pretrain.pth.tar r50.safetensors \\
        --backbone resnet50
    python extra_scripts/convert_weights.py runs/mine r50_detectron2.pth --to detectron2
    python extra_scripts/convert_weights.py mine.pth wide.safetensors --backbone resnet50 \\
        backbone.width=2

The source is a run, one of its checkpoints, or a file (.safetensors, or torch.save's, which is read
as data; a .pkl is not). Its layout is found out unless --from names it; heads are left out. Every
tensor of the backbone must be there with its shape, or nothing is written and what is missing is
listed; what is no part of it is refused too. An existing target is kept unless --overwrite.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig, Normalization
from unlabeled.data.whole_files import write_file
from unlabeled.errors import CheckpointError, ConfigError, UserError
from unlabeled.evaluation.subject import IMAGENET, backbone_state, run_config, run_of
from unlabeled.models.backbone_files import PICKLED, load_into, read_weights
from unlabeled.models.key_maps import LAYOUTS, find_backbone
from unlabeled.registry import Component


def architecture(source: str, name: str | None, overrides: list[str]) -> Component:
    """The backbone that --backbone and its overrides describe, or else that of the run."""
    run = run_of(source)
    if name is not None:
        told = compose_config("evaluate", ["weights=random", f"backbone={name}", *overrides])
        component = build_config(EvaluateConfig, told.data, told.problems).backbone
        assert component is not None
        return component
    if run is None:
        raise ConfigError(
            f"{source} does not say its architecture; give --backbone, e.g. --backbone resnet50 "
            "(see `unlabeled list backbone` and configs/backbone/)"
        )
    if overrides:
        raise ConfigError(f"{overrides[0]}: settings of the backbone need --backbone")
    return run_config(run).backbone


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
        # Its tensors may neither share memory nor lie in it with gaps.
        apart = {name: tensor.clone().contiguous() for name, tensor in content.items()}
        write_file(target, lambda file: file.write(safetensors.torch.save(apart)))
    else:
        write_file(target, lambda file: torch.save(content, file))


def check_target(target: Path, layout: str, overwrite: bool) -> None:
    """ConfigError if the target cannot hold the layout or is there already."""
    accepted = [*([".safetensors"] if LAYOUTS[layout].flat else []), *PICKLED]
    if target.suffix not in accepted:
        raise ConfigError(f"{target}: for {layout}, give a name that ends in {', '.join(accepted)}")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} is there already; give another name or --overwrite")


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
    parser.add_argument("target", type=Path, help="file to write")
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
    target = given.target.expanduser()
    check_target(target, given.to, given.overwrite)
    backbone: nn.Module = architecture(given.source, given.backbone, given.overrides).build()
    layout, state = found(Path(given.source).expanduser(), backbone, given.origin)
    load_into(backbone, state, origin=given.source)
    save(target, LAYOUTS[given.to].content(state))
    numbers = sum(tensor.numel() for tensor in state.values())
    print(f"{layout} -> {given.to}: {len(state)} tensors, {numbers:,} numbers, in {target}")
    if given.to == "detectron2":
        run = run_of(given.source)
        print(detectron2_settings(run_config(run).normalization if run else IMAGENET))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit("stopped; nothing was written")
