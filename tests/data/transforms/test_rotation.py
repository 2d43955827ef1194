from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import InterpolationMode, RandomRotation
from torchvision.transforms import functional as F

from unlabeled.config.check import build_config
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.transforms.multi_crop import MultiCrop
from unlabeled.data.transforms.rotation import Rotation
from unlabeled.errors import ConfigError

DRAWS = 10_000
PIXELS = np.random.default_rng(0).integers(0, 256, (31, 31, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)


def build(**fields: Any) -> Rotation:
    return Rotation(build_config(Rotation.Config, fields))


def turned(operation: Rotation, uniform: float) -> Image.Image:
    return operation(IMAGE, np.array([uniform]))


@pytest.mark.parametrize("uniform", [0.0, 0.1, 0.37, 0.5, 0.99])
@pytest.mark.parametrize("degrees", [10.0, 180.0])
def test_pixels_are_those_of_torchvision(degrees: float, uniform: float) -> None:
    angle = (2 * uniform - 1) * degrees
    theirs = F.rotate(IMAGE, angle, interpolation=InterpolationMode.BILINEAR)
    assert turned(build(degrees=degrees), uniform).tobytes() == theirs.tobytes()


@pytest.mark.parametrize(("uniform", "quarters"), [(0.0, 0), (0.25, 1), (0.6, 2), (0.999, 3)])
def test_quarter_turns_move_pixels_and_change_none(uniform: float, quarters: int) -> None:
    ours = turned(build(quarter_turns=True), uniform)
    assert np.array_equal(np.asarray(ours), np.rot90(PIXELS, quarters))
    assert ours.tobytes() == F.rotate(IMAGE, 90 * quarters).tobytes()


def angles(operation: Rotation) -> np.ndarray:
    """The angle of every draw: the one argument of the step."""
    found = []
    for sample in range(DRAWS):
        (step,) = operation.steps(uniforms(SampleKey(0, 0, sample), 0, operation.draws))
        found.append(step.args[0])  # type: ignore[union-attr]
    return np.array(found)


def test_angles_are_distributed_as_in_torchvision() -> None:
    torch.manual_seed(0)
    theirs = np.array([RandomRotation.get_params([-25.0, 25.0]) for _ in range(DRAWS)])
    ours = angles(build(degrees=25.0))
    assert abs(ours).max() <= 25
    assert ks_2samp(ours, theirs).pvalue > 1e-3


@pytest.mark.slow
def test_quarter_turns_are_equally_likely() -> None:
    operation = build(quarter_turns=True)
    corner = Image.fromarray(np.pad(np.full((1, 1, 3), 255, np.uint8), ((0, 2), (0, 2), (0, 0))))
    counts = np.zeros((3, 3))
    for sample in range(DRAWS):
        image = operation(corner, uniforms(SampleKey(1, 0, sample), 0, operation.draws))
        counts += np.asarray(image)[:, :, 0] > 0
    corners = counts[[0, 0, 2, 2], [0, 2, 0, 2]]
    assert corners.sum() == DRAWS
    assert ((corners - DRAWS / 4) ** 2 / (DRAWS / 4)).sum() < 16.3  # 99.9 %, 3 degrees of freedom


@pytest.mark.parametrize("degrees", [-1.0, 181.0])
def test_impossible_angles_are_refused(degrees: float) -> None:
    with pytest.raises(ConfigError, match=r"degrees: must lie in 0\.\.180"):
        build(degrees=degrees)


@pytest.mark.parametrize("backend", ["compiled", "portable", "device"])
def test_only_the_reference_backend_can_do_it(backend: str) -> None:
    with pytest.raises(ConfigError, match=r"backend: .* cannot run 'rotation'"):
        build_config(MultiCrop.Config, {"operations": [{"name": "rotation"}], "backend": backend})
    config = build_config(MultiCrop.Config, {"operations": [{"name": "rotation"}]})
    assert len(MultiCrop(config)(np.zeros((20, 20, 3), np.uint8), SampleKey(0, 0, 0))) == 8
