from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chi2_contingency
from torchvision.transforms import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.functional import InterpolationMode

from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.transforms.auto_augment import AutoAugment

DRAWS = 10_000
OPERATION = AutoAugment(AutoAugment.Config())
THEIRS = TorchvisionAutoAugment()


def image(width: int = 40, height: int = 30) -> Image.Image:
    array = np.random.default_rng(0).integers(30, 220, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(array)


def torchvisions(pair: int, act: list[float], sides: list[float]) -> Image.Image:
    """torchvision's policy with given decisions: which pair, the two chances, the two signs."""
    space = THEIRS._augmentation_space(10, (30, 40))
    changed = image()
    for (name, p, place), chance, side in zip(THEIRS.policies[pair], act, sides, strict=True):
        magnitudes, signed = space[name]
        magnitude = 0.0 if place is None else float(magnitudes[place])
        magnitude *= -1 if signed and side < 0.5 else 1
        if chance < p:
            changed = _apply_op(changed, name, magnitude, InterpolationMode.NEAREST, None)
    return changed


@pytest.mark.parametrize("pair", range(25))
def test_every_pair_is_torchvisions(pair: int) -> None:
    """Chances just below and above the probabilities, and both signs."""
    first, second = ((p - 0.01, min(p + 0.01, 0.999)) for _, p, _ in THEIRS.policies[pair])
    for act in map(list, product(first, second)):
        for sides in ([0.2, 0.8], [0.7, 0.3]):
            draws = np.array([(pair + 0.5) / 25, *act, *sides])
            expected = torchvisions(pair, act, sides)
            assert OPERATION(image(), draws).tobytes() == expected.tobytes(), (act, sides)


def test_probabilities_are_met_from_below() -> None:
    """Pair 12 begins with a probability of 0, pair 13 ends with one of 1."""
    assert OPERATION.steps(np.array([12.5 / 25, 0.0, 0.9, 0.0, 0.0])) == ()
    assert len(OPERATION.steps(np.array([13.5 / 25, 0.9, 0.999999, 0.0, 0.0]))) == 1


@pytest.mark.slow
def test_outcomes_are_as_frequent_as_in_torchvision() -> None:
    """Each of the pairs, with each of its parts acting or not, makes another image."""
    small = image(12, 9)
    torch.manual_seed(0)
    theirs = Counter(THEIRS(small).tobytes() for _ in range(DRAWS))
    ours = Counter(
        OPERATION(small, uniforms(SampleKey(0, 0, i), 0, OPERATION.draws)).tobytes()
        for i in range(DRAWS)
    )
    common = [outcome for outcome in theirs if theirs[outcome] + ours[outcome] >= 20]
    assert len(common) > 30
    table = np.array([[found[outcome] for outcome in common] for found in (theirs, ours)])
    rest = 2 * [DRAWS] - table.sum(axis=1)
    assert chi2_contingency(np.column_stack([table, rest + 1])).pvalue > 1e-3


def test_draws_are_fixed() -> None:
    assert OPERATION.draws == 5 and OPERATION.max_steps == 2
    for sample in range(200):
        steps = OPERATION.steps(uniforms(SampleKey(0, 0, sample), 0, 5))
        assert len(steps) <= 2 and all(callable(step) for step in steps)
