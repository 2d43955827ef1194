"""Decisions made by compiled code are those that Python makes, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unlabeled.config.check import build_config
from unlabeled.data.pixels.chance import Chance, RandomStep
from unlabeled.data.pixels.compiled import Compiled
from unlabeled.data.pixels.reference import Reference
from unlabeled.data.pixels.table import CODES
from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.multi_crop import MultiCrop

SIZES = [(500, 375), (60, 48), (1, 1), (3, 30000), (30000, 2), (33, 17), (7, 400)]
# Hashes of these come to lie on both sides of 2^63, which numba takes for different types.
SEEDS = (0, 1, -3, 2**63 + 5, 2**70 + 1)
STEEP: dict[str, Any] = {
    "crops": [
        {"count": 3, "size": 20, "scale": [0.9, 1.0], "role": "global"},
        {"count": 1, "size": 8, "scale": [1e-4, 1e-3], "role": "local", "operations": []},
    ],
    "ratio": [0.2, 0.5],
    "interpolation": "bicubic",
    "operations": [
        {"name": "color_jitter", "hue": 0.0, "contrast": 3.0},
        {"name": "solarize", "p": 1.0, "threshold": 77},
        {"name": "vertical_flip"},
        {"name": "gaussian_blur", "min_sigma": 1.0, "max_sigma": 1.0},
    ],
}


def pipeline(**data: Any) -> MultiCrop:
    return MultiCrop(build_config(MultiCrop.Config, data))


@pytest.mark.parametrize("data", [{}, STEEP], ids=["swav", "steep"])
@pytest.mark.parametrize("size", SIZES)
def test_plans_are_equal(size: tuple[int, int], data: dict[str, Any]) -> None:
    recipe = pipeline(**data).recipe
    compiled = Compiled()
    compiled.prepare()
    assert recipe.tables is not None
    for sample in range(200):
        key = SampleKey(SEEDS[sample % len(SEEDS)], -1, sample)
        table = np.full((len(recipe.views), 9), -99)
        codes, numbers = np.zeros(recipe.all_steps, np.int64), np.zeros(recipe.all_steps)
        compiled.decide(recipe, key, size, table, codes, numbers, np.empty((len(table), 0, 2)))
        for plan, row in zip(recipe.plan(*size, key), table.tolist(), strict=True):
            address, *box, side, bicubic, first, end = row
            assert address == -99  # not the planner's
            assert tuple(box) == plan.box
            assert (side, bicubic) == (plan.spec.size, plan.interpolation == "bicubic")
            steps = [(CODES[name], number) for name, number in plan.steps]  # type: ignore[misc]
            assert list(zip(codes[first:end], numbers[first:end], strict=True)) == steps


@pytest.mark.parametrize("data", [{}, STEEP], ids=["swav", "steep"])
def test_views_and_deferred_steps_are_equal(data: dict[str, Any]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    recipe = pipeline(**data).recipe
    for sample in range(10):
        made = []
        for backend in (Reference(), Compiled()):
            views = [np.empty((3, v.spec.size, v.spec.size), np.uint8) for v in recipe.views]
            tables = [np.full((recipe.max_steps, 2), np.nan) for _ in views]
            backend.make(recipe, image, SampleKey(1, 0, sample), views, ())
            whole = [view.copy() for view in views]
            backend.make(recipe, image, SampleKey(1, 0, sample), views, tables)
            made.append([*whole, *views, *tables])
        for theirs, ours in zip(*made, strict=True):
            assert np.array_equal(theirs, ours)


def test_operations_that_decide_in_python_have_no_tables() -> None:
    some = pipeline(operations=[{"name": "horizontal_flip"}, {"name": "rotation"}])
    assert some.recipe.tables is None
    assert some.recipe.in_python


def test_a_chance_takes_what_its_uniforms_say() -> None:
    chance = Chance(
        0.5,
        draws=5,
        steps=(
            RandomStep("brightness", 0.5, 1.5, number_from=3, grid=4, sorted_by=1),
            RandomStep("hue", -0.2, 0.2, number_from=4, sorted_by=2),
        ),
    )
    assert chance.decide([0.5, 0.1, 0.2, 0.3, 0.75]) == ()
    first, second = chance.decide([0.49, 0.1, 0.2, 0.3, 0.75])
    assert first == ("brightness", 0.75)  # 0.8, on a grid of quarters
    assert second == ("hue", pytest.approx(0.1))
    assert [name for name, _ in chance.decide([0.0, 0.2, 0.1, 0.3, 0.75])] == ["hue", "brightness"]
