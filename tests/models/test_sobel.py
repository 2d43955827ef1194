from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unlabeled.models.sobel import Sobel

DATA = Path(__file__).parents[1] / "data"


def by_hand(images: Tensor) -> Tensor:
    """Every output as the sum it is defined by, in float64, with zeros around the image."""
    batch, _, height, width = images.shape
    grey = torch.zeros(batch, height + 2, width + 2, dtype=torch.float64)
    grey[:, 1:-1, 1:-1] = (images[:, 0] + images[:, 1] + images[:, 2]).double() / 3
    result = torch.empty(batch, 2, height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            left, right = (grey[:, y : y + 3, x + side] for side in (0, 2))
            above, below = (grey[:, y + side, x : x + 3] for side in (0, 2))
            weights = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
            result[:, 0, y, x] = (left - right) @ weights
            result[:, 1, y, x] = (above - below) @ weights
    return result


def test_slopes_are_the_weighted_differences_of_neighbours() -> None:
    images = torch.randn(2, 3, 7, 5)
    edges = Sobel()(images)
    assert edges.shape == (2, 2, 7, 5)
    torch.testing.assert_close(edges.double(), by_hand(images), atol=1e-5, rtol=0)


def test_slopes_are_the_official_network_s() -> None:
    with np.load(DATA / "deepcluster_v1_steps.npz") as golden:
        edges = Sobel()(torch.from_numpy(golden["sobel_in"]))
        np.testing.assert_allclose(edges.numpy(), golden["sobel_out_v1"], atol=1e-5)


def test_turning_the_image_exchanges_the_two_slopes() -> None:
    images = torch.randn(1, 3, 6, 6)
    edges, turned = Sobel()(images), Sobel()(images.transpose(2, 3))
    torch.testing.assert_close(turned, edges.flip(1).transpose(2, 3))


def test_flat_areas_have_no_slope_and_colour_does_not_matter() -> None:
    images = torch.ones(1, 3, 6, 6)
    assert Sobel()(images)[:, :, 1:-1, 1:-1].abs().max() == 0
    assert Sobel()(torch.randn(1, 3, 6, 6))[:, :, 1:-1, 1:-1].abs().max() > 0
    colours = torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(Sobel()(colours), Sobel()(colours[:, [2, 0, 1]]))


def test_nothing_is_trained_or_stored() -> None:
    sobel = Sobel()
    assert list(sobel.parameters()) == [] and sobel.state_dict() == {}
    images = torch.randn(1, 3, 4, 4, requires_grad=True)
    sobel(images).square().sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
