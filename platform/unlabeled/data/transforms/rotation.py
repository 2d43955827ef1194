"""Turn an image by a random angle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image

from unlabeled.data.pixels.base import Steps
from unlabeled.data.transforms.base import Operation
from unlabeled.registry import register

QUARTERS = (
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
)


@register("transform", "rotation")
class Rotation(Operation):
    """Turn about the centre by an angle uniform in [-degrees, degrees], or by a quarter turn.

    The image keeps its size; pixels are interpolated bilinearly, and corners that come from outside
    are black. Quarter turns (0, 90, 180 or 270 degrees, equally likely) move pixels and change none
    of them: for pictures without an up. Only the reference backend can do it.
    Equal to torchvision's RandomRotation on PIL images with the same angle, counter-clockwise.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        degrees: float = 10.0
        """Largest angle to either side, in degrees; without meaning for quarter turns."""
        quarter_turns: bool = False
        """Turn by a multiple of 90 degrees instead."""

        def problems(self) -> Iterator[tuple[str, str]]:
            if not 0 <= self.degrees <= 180:
                yield "degrees", f"must lie in 0..180, got {self.degrees}"

    draws = 1
    in_python = True

    def __init__(self, config: Config) -> None:
        self.config = config

    def steps(self, uniforms: Sequence[float]) -> Steps:
        draw = uniforms[0]
        if self.config.quarter_turns:
            turns = int(4 * draw)
            return (partial(_transposed, QUARTERS[turns - 1]),) if turns else ()
        return (partial(_turned, (2 * draw - 1) * self.config.degrees),)


def _transposed(quarters: Image.Transpose, image: Image.Image) -> Image.Image:
    return image.transpose(quarters)


def _turned(angle: float, image: Image.Image) -> Image.Image:
    return image.rotate(angle, Image.Resampling.BILINEAR)
