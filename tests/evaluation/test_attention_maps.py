from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unlabeled.evaluation.attention_maps import cls_attention, enlarged, fitted, mass_masks
from unlabeled.models.backbones.vit import ViT


def test_a_map_is_the_attention_of_the_cls_token_to_the_patches() -> None:
    backbone = ViT(ViT.Config(width=8, depth=2, heads=2, patch=4, image_size=16)).eval()
    images = torch.randn(2, 3, 8, 12)
    everything = backbone.last_attention(images, queries=7)
    torch.testing.assert_close(everything.sum(dim=3), torch.ones(2, 2, 7))
    maps = cls_attention(backbone, images)
    assert maps.shape == (2, 2, 2, 3)
    assert torch.equal(maps.flatten(2), everything[:, :, 0, 1:])


@pytest.mark.parametrize("mass", [0.2, 0.6, 0.95])
def test_a_mask_holds_the_mass_in_as_few_places_as_can_be(mass: float) -> None:
    maps = torch.rand(5, 3, 4).pow(3)
    for attention, mask in zip(maps, mass_masks(maps, mass), strict=True):
        values = np.sort(attention.double().numpy().ravel())[::-1] / attention.double().sum().item()
        fewest = int((np.cumsum(values) < mass).sum()) + 1  # the most attended first
        assert int(mask.sum()) == fewest
        assert attention[mask].min() > attention[~mask].max()


def test_all_of_the_mass_is_every_place() -> None:
    assert mass_masks(torch.rand(2, 3, 3) + 0.1, 1.0).all()


def test_a_pixel_has_the_value_of_its_patch() -> None:
    maps = torch.arange(6).reshape(1, 2, 3)
    large = enlarged(maps, 4)
    assert large.shape == (1, 8, 12)
    for row in range(8):
        for column in range(12):
            assert large[0, row, column] == maps[0, row // 4, column // 4]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 50), (64, 32)), ((50, 100), (32, 64)), ((37, 32), (36, 32)), ((9, 9), (32, 32))],
)
def test_pictures_are_whole_patches(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """The shorter side is 32, patches are 4 px wide; the rest is cut off, not squeezed in."""
    picture = Image.effect_noise(size, 50)
    found = fitted(picture, 32, 4, Image.Resampling.BICUBIC)
    assert found.size == expected
    if size == (37, 32):
        assert found.tobytes() == picture.crop((0, 0, 36, 32)).tobytes()
