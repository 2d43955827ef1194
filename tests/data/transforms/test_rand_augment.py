from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chi2_contingency
from torchvision.transforms import RandAugment as TorchvisionRandAugment
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.functional import InterpolationMode

from unlabeled.config.check import build_config
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.transforms.rand_augment import NAMES, RandAugment
from unlabeled.errors import ConfigError

DRAWS = 10_000


def image(width: int = 40, height: int = 30) -> Image.Image:
    array = np.random.default_rng(0).integers(30, 220, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(array)


def build(**fields: Any) -> RandAugment:
    return RandAugment(build_config(RandAugment.Config, fields))


def draws_for(which: int, side: float) -> np.ndarray:
    return np.array([(which + 0.5) / len(NAMES), side])


def theirs(place: int, strength: int, sign: float) -> Image.Image:
    """torchvision's operation number `place` with this strength and sign."""
    space = TorchvisionRandAugment()._augmentation_space(31, (30, 40))
    name = list(space)[place]
    magnitudes, signed = space[name]
    magnitude = float(magnitudes[strength]) if magnitudes.ndim else 0.0
    magnitude *= sign if signed else 1.0
    changed: Image.Image = _apply_op(image(), name, magnitude, InterpolationMode.NEAREST, None)
    return changed


@pytest.mark.parametrize("strength", [0, 1, 9, 17, 30])
@pytest.mark.parametrize("place", range(14))
def test_pixels_are_those_of_torchvision(place: int, strength: int) -> None:
    """The operations stand in torchvision's order."""
    operation = build(num_ops=1, magnitude=strength)
    for side, sign in ((0.2, -1.0), (0.7, 1.0)):
        ours = operation(image(), draws_for(place, side))
        assert ours.tobytes() == theirs(place, strength, sign).tobytes(), NAMES[place]


def test_operations_follow_each_other() -> None:
    one, two = build(num_ops=1), build(num_ops=2)
    for first, second in ((3, 8), (8, 3), (10, 5), (0, 0)):
        u, v = draws_for(first, 0.1), draws_for(second, 0.9)
        expected = one(one(image(), u), v)
        assert two(image(), np.concatenate([u, v])).tobytes() == expected.tobytes()


@pytest.mark.slow
def test_outcomes_are_as_frequent_as_in_torchvision() -> None:
    """What comes out of one operation names the operation and its sign."""
    small = image(12, 9)
    torch.manual_seed(0)
    reference, operation = (
        TorchvisionRandAugment(num_ops=1, magnitude=12),
        build(num_ops=1, magnitude=12),
    )
    counts = Counter(reference(small).tobytes() for _ in range(DRAWS))
    ours = Counter(
        operation(small, uniforms(SampleKey(0, 0, i), 0, operation.draws)).tobytes()
        for i in range(DRAWS)
    )
    assert len(counts) >= 20 and set(counts) == set(ours)
    table = [[found[outcome] for outcome in counts] for found in (counts, ours)]
    assert chi2_contingency(table).pvalue > 1e-3


def test_successive_operations_are_independent() -> None:
    operation = build(num_ops=2)
    table = np.zeros((14, 14))
    for sample in range(DRAWS):
        draws = uniforms(SampleKey(0, 0, sample), 0, operation.draws)
        first, second = int(draws[0] * 14), int(draws[2] * 14)
        assert len(operation.steps(draws)) == (first > 0) + (second > 0)
        table[first, second] += 1
    assert chi2_contingency(table).pvalue > 1e-3


def test_draws_are_fixed_and_no_operation_is_none() -> None:
    assert [build(num_ops=n).draws for n in (0, 1, 3)] == [0, 2, 6]
    original = image()
    assert build(num_ops=0)(original, np.empty(0)) is original
    assert build(num_ops=3).max_steps == 3


@pytest.mark.parametrize(
    ("field", "value"), [("num_ops", -1), ("magnitude", 31), ("magnitude", -1)]
)
def test_impossible_values_are_refused(field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{field}: must .*got {value}"):
        build(**{field: value})
