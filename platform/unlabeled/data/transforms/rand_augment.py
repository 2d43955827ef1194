"""Change an image by a few operations drawn from a fixed list, all of one strength."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unlabeled.config.ranges import at_least
from unlabeled.data.pixels.base import PythonStep, Steps
from unlabeled.data.transforms.base import Operation
from unlabeled.data.transforms.policy_changes import CHANGES, LARGEST, change, magnitude
from unlabeled.registry import register

BINS = 31
NAMES = ("identity", *(name for name in CHANGES if name != "invert"))
"""The 14 operations of the paper's section 3; identity does nothing."""


@register("transform", "rand_augment")
class RandAugment(Operation):
    """Apply `num_ops` operations, each drawn uniformly from 14, all of strength `magnitude` of 31.

    Shears, translations, rotation, brightness, colour, contrast and sharpness take either sign with
    probability 1/2. Made for supervised training; only the reference backend can do it.
    Equal to torchvision's RandAugment on PIL images with the same draws.
    Reference: Cubuk et al. 2020, "RandAugment: Practical automated data augmentation", section 3.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        num_ops: int = 2
        """Operations one after another (N of the paper; ResNet-50 on ImageNet: 2)."""
        magnitude: int = 9
        """Strength of all of them, 0..30 (M of the paper; ResNet-50 on ImageNet: 9)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from at_least(self, 0, "num_ops")
            if not 0 <= self.magnitude < BINS:
                yield "magnitude", f"must lie in 0..{BINS - 1}, got {self.magnitude}"

    in_python = True

    def __init__(self, config: Config) -> None:
        self.max_steps = config.num_ops
        self.draws = 2 * config.num_ops  # which, and its sign
        self._strengths = {name: magnitude(name, config.magnitude, BINS) for name in NAMES}

    def steps(self, uniforms: Sequence[float]) -> Steps:
        steps: list[PythonStep] = []
        for which, side in zip(uniforms[::2], uniforms[1::2], strict=True):
            name = NAMES[int(which * len(NAMES))]
            sign = -1 if name in LARGEST and side < 0.5 else 1
            if name != "identity":
                steps.append(change(name, sign * self._strengths[name]))
        return tuple(steps)
