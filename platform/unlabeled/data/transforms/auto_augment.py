"""Change an image by one of the pairs of operations that were found best on ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unlabeled.data.pixels.base import PythonStep, Steps
from unlabeled.data.transforms.base import Operation
from unlabeled.data.transforms.policy_changes import LARGEST, change, magnitude
from unlabeled.registry import register

BINS = 10

# Name, probability, strength 0..9 (0 where the operation has none). 25 pairs, some of them twice.
POLICY = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("color", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)


@register("transform", "auto_augment")
class AutoAugment(Operation):
    """Apply one of 25 pairs of operations, each operation with its own probability and strength.

    Shears, rotation, colour, contrast and sharpness take either sign with probability 1/2. Made for
    supervised training, and found with ImageNet's labels; only the reference backend can do it.
    Equal to torchvision's AutoAugment (policy IMAGENET) on PIL images with the same draws.
    Reference: Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from Data", table 9.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """The policy has no free parameters."""

    draws = 5  # the pair, two probabilities, two signs
    max_steps = 2
    in_python = True

    def __init__(self, config: Config) -> None:
        self.config = config

    def steps(self, uniforms: Sequence[float]) -> Steps:
        which, *rest = uniforms
        steps: list[PythonStep] = []
        pair = POLICY[int(which * len(POLICY))]
        for (name, p, place), act, side in zip(pair, rest[:2], rest[2:], strict=True):
            sign = -1 if name in LARGEST and side < 0.5 else 1
            if act < p:
                steps.append(change(name, sign * magnitude(name, place, BINS)))
        return tuple(steps)
