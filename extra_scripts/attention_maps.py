r"""Where the CLS token of a vision transformer looks: a sheet of images and attention maps (PNG).

    python extra_scripts/attention_maps.py runs/mine sheet.png dataset=folder \
        dataset.root=photographs --size 480
    python extra_scripts/attention_maps.py dino_deitsmall8_pretrain.pth sheet.png backbone=vit_s8 \
        dataset=davis dataset.root=DAVIS --split test

Every image has two lines. The first: the image, and the attention of the last block, head by head,
brightest where it is most. The second: the objects, where the data set marks them, and of every
head the part of the image that holds 60 % of its attention (--mass). Images are taken at equal
distances from the data set (the run's own unless dataset=... names one). What `unlabeled evaluate
benchmark=attention_masks` measures is what the second line shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unlabeled.cli.script import run_script
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig
from unlabeled.data.decode import BrokenImage
from unlabeled.data.normalize import Normalize
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.videos import VideoSource
from unlabeled.data.whole_files import write_file
from unlabeled.engine.devices import choose_device
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.attention_maps import cls_attention, enlarged, fitted, mass_masks
from unlabeled.evaluation.subject import frozen, load_encoder, named_dataset
from unlabeled.evaluation.token_features import require_tokens

GAP = 4
GREY = 96
"""What is left of pixels outside a mask, of 255."""

Tiles = list[np.ndarray]
"""Pictures uint8 [h, w, 3] of one size."""


def lines_of(
    look: Callable[[Tensor], Tensor], patch: int, source: Source, index: int, given: Any
) -> tuple[Tiles, Tiles]:
    """The two lines of an image; `look` gives the attention [1, heads, h, w] of uint8 images."""
    picture = Image.fromarray(source.image(index))
    pixels = np.array(fitted(picture, given.size, patch, Image.Resampling.BICUBIC))
    maps = look(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])[0]  # [heads, h, w]
    heat = enlarged(maps / maps.amax(dim=(1, 2), keepdim=True), patch)
    masks = enlarged(mass_masks(maps, given.mass), patch)
    objects = np.full(pixels.shape, 255, dtype=np.uint8)
    if isinstance(source, VideoSource):
        marked = Image.fromarray(source.mask(index))
        truth = np.array(fitted(marked, given.size, patch, Image.Resampling.NEAREST))
        objects = lit(pixels, torch.from_numpy((truth > 0) & (truth < 255)))
    return [pixels, *map(grey, heat)], [objects, *(lit(pixels, mask) for mask in masks)]


def grey(heat: Tensor) -> np.ndarray:
    """[h, w] in [0, 1] as a picture."""
    return np.repeat((255 * heat).byte().numpy()[:, :, None], 3, axis=2)


def lit(pixels: np.ndarray, mask: Tensor) -> np.ndarray:
    """The picture, darker outside the mask."""
    strength = torch.where(mask, 255, GREY).numpy()[:, :, None]
    darkened: np.ndarray = (pixels.astype(np.int64) * strength // 255).astype(np.uint8)
    return darkened


def sheet(lines: list[Tiles], side: int) -> Image.Image:
    """The tiles of all lines on white; each is shrunk so that none of its sides exceeds `side`."""
    columns = max(map(len, lines))
    page = Image.new(
        "RGB", (columns * (side + GAP) + GAP, len(lines) * (side + GAP) + GAP), "white"
    )
    for row, tiles in enumerate(lines):
        for column, tile in enumerate(tiles):
            small = Image.fromarray(tile)
            scale = side / max(small.size)
            width, height = (max(1, round(scale * length)) for length in small.size)
            resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
            place = (GAP + column * (side + GAP), GAP + row * (side + GAP))
            page.paste(small.resize((width, height), resample), place)
    return page


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="a run, checkpoint or weights file of a ViT, or random")
    parser.add_argument("target", type=Path, help="picture to write (.png)")
    parser.add_argument("settings", nargs="*", help="KEY=VALUE as of `unlabeled evaluate`")
    parser.add_argument("--split", choices=["train", "test"], default="train", help="(train)")
    parser.add_argument("--images", type=int, default=8, help="how many (8)")
    parser.add_argument("--size", type=int, default=480, help="shorter side, in pixels (480)")
    parser.add_argument("--mass", type=float, default=0.6, help="attention in a mask (0.6)")
    parser.add_argument("--side", type=int, default=160, help="of a tile, in pixels (160)")
    return parser.parse_intermixed_args()


def check(given: argparse.Namespace) -> None:
    """ConfigError for values out of range."""
    for name in ("images", "size", "side"):
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name}: must be 1 or more, got {getattr(given, name)}")
    if not 0 < given.mass <= 1:
        raise ConfigError(f"--mass: must lie in (0, 1], got {given.mass}")
    if given.target.suffix != ".png":
        raise ConfigError(f"{given.target}: give a name that ends in .png")


def main() -> None:
    """Load, look, write."""
    given = parsed()
    check(given)
    told = compose_config("evaluate", [f"weights={given.weights}", *given.settings])
    config = build_config(EvaluateConfig, told.data, told.problems)
    encoder = load_encoder(config)
    device = choose_device(config.device, local_rank=0)
    backbone = require_tokens(frozen(encoder.backbone, device), "weights")
    if given.size < backbone.patch:
        raise ConfigError(f"--size: {given.size} px are less than a patch of {backbone.patch} px")
    source: Source = named_dataset(config).build(split=given.split)
    chosen = np.linspace(0, len(source) - 1, num=min(given.images, len(source)), dtype=np.int64)
    normalize = Normalize(encoder.normalization, device)

    def look(images: Tensor) -> Tensor:
        with torch.no_grad():
            return cls_attention(backbone, normalize(images.to(device))).cpu()

    lines: list[Tiles] = []
    for index in chosen.tolist():
        try:
            lines += lines_of(look, backbone.patch, source, index, given)
        except BrokenImage as error:
            print(f"left out: {source.name(index)} ({error})", file=sys.stderr)
    if not lines:
        raise DataError("none of the images can be decoded")
    page = sheet(lines, given.side)
    write_file(given.target.expanduser(), lambda file: page.save(file, "PNG"))
    print(f"{len(lines) // 2} images, {len(lines[0]) - 1} heads: {given.target}")


if __name__ == "__main__":
    run_script(main, stopped="stopped; nothing was written")
