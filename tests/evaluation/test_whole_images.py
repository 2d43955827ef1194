from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tests_support.loading import loading
from tests_support.probes import Blobs, make_probe
from tests_support.ranks import run_ranks
from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.base import Source
from unlabeled.errors import DataError
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.whole_images import longest_side, over_scales, square, whole_features
from unlabeled.models.backbones.vit import ViT

GOLDEN = Path(__file__).parents[1] / "data" / "dino_eval.npz"


class Shapes(Source):
    """Random images of a few different shapes; those of `broken` cannot be decoded."""

    def __init__(self, count: int, broken: frozenset[int] = frozenset()) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> np.ndarray:
        if index in self.broken:
            raise BrokenImage("truncated")
        height, width = [(9, 6), (9, 6), (6, 12), (5, 5)][index % 4]
        random = np.random.default_rng(index)
        return random.integers(0, 256, (height, width, 3), dtype=np.uint8)

    def name(self, index: int) -> str:
        return f"shape-{index}"


def rough(images: Tensor) -> Tensor:
    """An encoder for any size that sees where things are: means and slopes of every channel."""
    slope = torch.linspace(-1, 1, images.shape[3])
    return torch.cat([images.mean(dim=(2, 3)), (images * slope).mean(dim=(2, 3))], dim=1)


def shape_probe(batch_size: int = 64, workers: int = 0) -> Probe:
    blobs = Blobs(2, 5)
    probe = make_probe(blobs.draw(2, 1), blobs.draw(2, 2), encode=rough, batch_size=batch_size)
    return replace(probe, loader=loading(workers))


def naive(count: int) -> Tensor:
    """Image by image, shrunk by PIL."""
    found = []
    for index in range(count):
        picture = Image.fromarray(Shapes(count).image(index))
        picture.thumbnail((6, 6), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        found.append(rough(pixels))
    return torch.cat(found)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
@pytest.mark.parametrize("workers", [0, 3])
def test_rows_are_the_images_in_order(batch_size: int, workers: int) -> None:
    probe = shape_probe(batch_size, workers)
    found = whole_features(probe, Shapes(11), longest_side(6))
    torch.testing.assert_close(found, naive(11))


def test_proportions_are_kept_or_not() -> None:
    sizes = [(9, 6), (6, 12), (5, 5), (30, 4)]
    pictures = [Image.new("RGB", size) for size in sizes]
    assert [longest_side(6)(each.copy()).size for each in pictures] == [
        (6, 4),
        (3, 6),
        (5, 5),
        (6, 1),
    ]
    assert [square(7)(each).size for each in pictures] == [(7, 7)] * 4
    wide = Image.fromarray(Shapes(4).image(2))
    assert np.array_equal(square(7)(wide), wide.resize((7, 7), Image.Resampling.BICUBIC))


def test_a_vit_sees_whole_patches_of_every_scale() -> None:
    backbone = ViT(ViT.Config(width=8, depth=1, heads=2, patch=2, image_size=4)).eval()
    backbone.requires_grad_(False)
    probe = replace(shape_probe(), encode=backbone, backbone=backbone)
    found = whole_features(probe, Shapes(4), longest_side(9), [1.0, 0.5])
    for index, row in enumerate(found):
        picture = Image.fromarray(Shapes(4).image(index))
        picture.thumbnail((9, 9), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        half = F.interpolate(pixels, scale_factor=0.5, mode="bilinear")
        cut = [
            each[..., : each.shape[2] // 2 * 2, : each.shape[3] // 2 * 2] for each in (pixels, half)
        ]
        torch.testing.assert_close(row, (backbone(cut[0]) + backbone(cut[1]))[0] / 2)


def test_scales_are_averaged() -> None:
    images = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    half = F.avg_pool2d(images, 2)  # what bilinear halving is, where sides are even
    expected = (rough(images) + rough(half)) / 2
    torch.testing.assert_close(over_scales(rough, images, [1.0, 0.5]), expected)
    torch.testing.assert_close(over_scales(rough, images, [1.0]), rough(images))


def test_scales_are_those_of_the_official_function() -> None:
    """Three scales of one image of odd size, through a convolution of stride 3."""
    golden = {
        name: torch.from_numpy(array)
        for name, array in np.load(GOLDEN).items()
        if name.startswith("ms_")
    }

    def encode(images: Tensor) -> Tensor:
        weight, bias = golden["ms_conv_w"], golden["ms_conv_b"]
        return F.relu(F.conv2d(images, weight, bias, stride=3)).mean(dim=(2, 3))

    found = F.normalize(over_scales(encode, golden["ms_in"], [1.0, 0.5**0.5, 0.5]), dim=1)
    torch.testing.assert_close(found, golden["ms_out"], atol=1e-6, rtol=0)


def on_ranks(count: int) -> Tensor:
    return whole_features(shape_probe(), Shapes(count), longest_side(6), [1.0, 0.5])


@pytest.mark.slow
@pytest.mark.parametrize("count", [11, 2, 1])
def test_ranks_gather_what_one_encodes(count: int) -> None:
    alone = on_ranks(count)
    assert len(alone) == count
    for found in run_ranks(on_ranks, 2, count):
        torch.testing.assert_close(found, alone, rtol=1e-6, atol=1e-6)


def refusal(count: int) -> str:
    with pytest.raises(DataError) as caught:
        whole_features(shape_probe(), Shapes(count, frozenset({1, 6})), longest_side(6))
    return str(caught.value)


@pytest.mark.slow
def test_broken_images_are_an_error_on_every_rank() -> None:
    expected = "2 of 8 images cannot be decoded, the first is shape-1 (truncated)"
    assert refusal(8).startswith(expected)
    for said in run_ranks(refusal, 2, 8):
        assert said.startswith(expected)


def test_features_that_are_not_finite_are_named() -> None:
    def diverged(images: Tensor) -> Tensor:
        return rough(images) / (images.shape[3] != images.shape[2])

    probe = replace(shape_probe(), encode=diverged)
    with pytest.raises(DataError, match="features of shape-3 are NaN or infinite"):
        whole_features(probe, Shapes(11), longest_side(12))
