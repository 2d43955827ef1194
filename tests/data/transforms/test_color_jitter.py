from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import ColorJitter as TorchvisionJitter
from torchvision.transforms import functional as F

from unlabeled.config.check import build_config
from unlabeled.data.pixels.base import Step
from unlabeled.data.pixels.reference import CHANGES
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.transforms.color_jitter import GRID, ColorJitter
from unlabeled.errors import ConfigError

NAMES = ("brightness", "contrast", "saturation", "hue")
DRAWS = 10_000


def image(seed: int = 0, size: int = 33) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (size, size + 5, 3), dtype=np.uint8)
    return Image.fromarray(array)


def steps_of(operation: ColorJitter, uniforms: np.ndarray) -> list[Step]:
    steps = []
    for step in operation.steps(uniforms):
        assert not callable(step)
        steps.append(step)
    return steps


def drawn(operation: ColorJitter, count: int = DRAWS) -> list[list[Step]]:
    keys = (SampleKey(0, 0, sample) for sample in range(count))
    return [steps_of(operation, uniforms(key, 0, operation.draws)) for key in keys]


@pytest.mark.parametrize("name", NAMES[:3])
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.731, 1.0, 1.37, 1.8, 4.0])
def test_factors_do_what_torchvision_does(name: str, factor: float) -> None:
    for seed in range(5):
        theirs = getattr(F, f"adjust_{name}")(image(seed), factor)
        assert CHANGES[name](image(seed), factor).tobytes() == theirs.tobytes()


@pytest.mark.parametrize("shift", [-0.5, -0.2, -0.1003, -0.001, 0.0, 0.001, 0.0999, 0.2, 0.5])
def test_hue_turns_as_in_torchvision(shift: float) -> None:
    for seed in range(5):
        theirs = F.adjust_hue(image(seed), shift)
        assert CHANGES["hue"](image(seed), shift).tobytes() == theirs.tobytes()


def test_steps_are_applied_in_the_drawn_order() -> None:
    operation = ColorJitter(ColorJitter.Config(p=1.0))
    for sample in range(50):
        draws = uniforms(SampleKey(0, 0, sample), 0, operation.draws)
        theirs = image()
        for name, factor in steps_of(operation, draws):
            theirs = getattr(F, f"adjust_{name}")(theirs, factor)
        assert operation(image(), draws).tobytes() == theirs.tobytes()


def test_factors_are_multiples_of_the_grid_and_hue_is_not_rounded() -> None:
    numbers: dict[str, list[float]] = {name: [] for name in NAMES}
    for steps in drawn(ColorJitter(ColorJitter.Config(p=1.0)), 500):
        for name, number in steps:
            numbers[name].append(number)
    for name in NAMES[:3]:
        assert all(number * GRID == round(number * GRID) for number in numbers[name])
    assert len(set(numbers["hue"])) == 500


def test_the_extremes_of_the_uniforms_are_the_extremes_of_the_factors() -> None:
    operation = ColorJitter(ColorJitter.Config(p=1.0, brightness=1.5))
    lowest, highest = (
        dict(steps_of(operation, np.array([0.0, 0.1, 0.2, 0.3, 0.4, u, u, u, u])))
        for u in (0.0, 1 - 2.0**-53)
    )
    assert lowest == pytest.approx(
        {"brightness": 0.0, "contrast": 0.2, "saturation": 0.2, "hue": -0.2}, abs=1 / GRID
    )
    assert highest == pytest.approx(
        {"brightness": 2.5, "contrast": 1.8, "saturation": 1.8, "hue": 0.2}, abs=1 / GRID
    )


@pytest.mark.slow
def test_factors_are_distributed_as_in_torchvision() -> None:
    operation = ColorJitter(ColorJitter.Config(p=1.0, brightness=0.8, contrast=0.4, saturation=1.5))
    torch.manual_seed(0)
    reference = TorchvisionJitter(0.8, 0.4, 1.5, 0.2)
    theirs = np.array(
        [
            reference.get_params(
                reference.brightness, reference.contrast, reference.saturation, reference.hue
            )[1:]
            for _ in range(DRAWS)
        ],
        dtype=np.float64,
    )
    ours = np.array([[dict(steps)[name] for name in NAMES] for steps in drawn(operation)])
    for column, name in enumerate(NAMES):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3, name
    assert abs(np.corrcoef(ours, rowvar=False) - np.eye(4)).max() < 0.05


def test_all_24_orders_are_equally_likely_and_p_is_kept() -> None:
    steps = drawn(ColorJitter(ColorJitter.Config(p=0.8)))
    orders = Counter(tuple(name for name, _ in s) for s in steps if s)
    acted = sum(orders.values())
    assert abs(acted / DRAWS - 0.8) < 4 * np.sqrt(0.8 * 0.2 / DRAWS)
    expected = acted / 24
    chi_square = sum((count - expected) ** 2 / expected for count in orders.values())
    assert len(orders) == 24 and chi_square < 49.7  # 99.9 % quantile with 23 degrees of freedom


def test_strength_zero_leaves_a_property_out() -> None:
    operation = ColorJitter(ColorJitter.Config(p=1.0, brightness=0, hue=0))
    assert {name for steps in drawn(operation, 20) for name, _ in steps} == {
        "contrast",
        "saturation",
    }


def test_doing_nothing_returns_the_image_itself() -> None:
    original = image()
    operation = ColorJitter(ColorJitter.Config(p=0.0))
    assert operation(original, np.full(9, 0.5)) is original


@pytest.mark.parametrize(
    ("field", "value"), [("p", 1.1), ("brightness", -0.1), ("contrast", -1.0), ("hue", 0.6)]
)
def test_impossible_values_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field}: must .*{value}"):
        build_config(ColorJitter.Config, {field: value})
