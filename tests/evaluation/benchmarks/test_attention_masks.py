from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests_support.probes import Blobs, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.videos import VideoSource
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.benchmarks.attention_masks import AttentionMasks
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.models.backbones.vit import ViT

SIDE, PATCH = 32, 4
SMALL = AttentionMasks.Config(image_size=SIDE)


class Marked(VideoSource):
    """Dark pictures of 32 x 40 px, each with one bright rectangle, its object, in a channel."""

    def __init__(self, channels: list[int], broken: int = -1) -> None:
        self.channels, self.broken = channels, broken
        self.videos = (range(len(channels)),)

    def __len__(self) -> int:
        return len(self.channels)

    def image(self, index: int) -> np.ndarray:
        if index == self.broken:
            raise BrokenImage("truncated")
        pixels = np.zeros((32, 40, 3), dtype=np.uint8)
        pixels[8:16, 4:24, self.channels[index]] = 255
        return pixels

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((32, 40), dtype=np.uint8)
        mask[8:16, 4:24] = 1 + index % 2
        return mask

    def name(self, index: int) -> str:
        return f"picture-{index}"


class Brightness(nn.Module):
    """A backbone of three heads: each looks at what is bright in its own channel."""

    feature_dim, patch, depth = 3, PATCH, 1

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    def tokens(self, images: Tensor, blocks: int = 1) -> list[Tensor]:
        return [self.feature_map(images).flatten(2).transpose(1, 2)] * blocks

    def feature_map(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, PATCH)

    def last_attention(self, images: Tensor, queries: int = 1) -> Tensor:
        scores = 9 * self.feature_map(images).flatten(2)  # [B, 3, h w]
        own = torch.zeros(len(images), 3, 1)
        weights = torch.cat([own, scores], dim=2).softmax(dim=2)
        return weights[:, :, None].expand(-1, -1, queries, -1)


def marked_probe(channels: list[int], broken: int = -1, backbone: nn.Module | None = None) -> Probe:
    backbone = backbone or Brightness()
    blobs = Blobs(2, 5)
    probe = make_probe(blobs.draw(2, 1), blobs.draw(2, 2), encode=backbone, backbone=backbone)
    return replace(probe, test=Marked(channels, broken))


def test_a_head_that_looks_at_the_objects_and_one_that_does_not() -> None:
    """The rectangle is 2 x 5 patches: 99 % of a head's mass are exactly it.

    Of another channel everything is alike, and the mask is nearly the whole picture of 80 patches.
    """
    config = replace(SMALL, mass=0.99)
    found = AttentionMasks(config).run(marked_probe([0, 0, 0, 1]))
    blind = 100 * 10 / 80
    assert found["iou"] == 100
    assert found["iou_one_head"] == pytest.approx((3 * 100 + blind) / 4, abs=0.5)
    assert found["iou_mean_head"] == pytest.approx((100 + 2 * blind) / 3, abs=0.5)


def test_unknown_pixels_do_not_count_and_pictures_without_objects_neither() -> None:
    class Doubtful(Marked):
        def mask(self, index: int) -> np.ndarray:
            mask = super().mask(index)
            mask[8:16, 12:24] = 255
            return mask if index != 1 else 0 * mask

    probe = replace(marked_probe([0]), test=Doubtful([0, 1, 0]))
    assert AttentionMasks(replace(SMALL, mass=0.99)).run(probe)["iou"] == 100


def naive(backbone: ViT, source: Marked, mass: float) -> list[list[float]]:
    """Patch by patch: sort, add up, compare."""
    table = []
    for index in range(len(source)):
        pixels = torch.from_numpy(source.image(index)).permute(2, 0, 1)[None] / 127.5 - 1
        objects = source.mask(index) > 0
        row = []
        for weights in backbone.last_attention(pixels)[0, :, 0, 1:].detach().double().numpy():
            mask = np.zeros((32, 40), dtype=bool)
            held = 0.0
            for place in np.argsort(-weights):
                if held >= mass * weights.sum():
                    break
                held += weights[place]
                top, left = PATCH * (place // 10), PATCH * (place % 10)
                mask[top : top + PATCH, left : left + PATCH] = True
            row.append(100 * (mask & objects).sum() / (mask | objects).sum())
        table.append(row)
    return table


def test_a_vit_equals_a_measurement_by_hand() -> None:
    backbone = ViT(ViT.Config(width=12, depth=2, heads=3, patch=PATCH, image_size=SIDE)).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    probe = marked_probe([0, 1, 2], backbone=backbone)
    table = np.array(naive(backbone, Marked([0, 1, 2]), 0.6))
    found = AttentionMasks(SMALL).run(probe)
    assert found == pytest.approx(
        {
            "iou": table.max(axis=1).mean(),
            "iou_one_head": table.mean(axis=0).max(),
            "iou_mean_head": table.mean(),
        }
    )
    assert "60 % of the attention" in AttentionMasks(SMALL).protocol


def measured() -> dict[str, float]:
    return AttentionMasks(SMALL).run(marked_probe([0, 1, 1]))


@pytest.mark.slow
def test_ranks_agree_with_one_process() -> None:
    assert run_ranks(measured, 2) == [measured()] * 2


def test_what_cannot_be_measured_is_named() -> None:
    probe, blobs = marked_probe([0]), Blobs(2, 5)
    with pytest.raises(DataError, match="compares with marked objects; give dataset=davis"):
        AttentionMasks(SMALL).run(replace(probe, test=blobs.draw(2, 1)))
    with pytest.raises(ConfigError, match=r"benchmark: the backbone \(Flatten\) has no CLS"):
        AttentionMasks(SMALL).run(replace(probe, backbone=nn.Flatten()))
    with pytest.raises(ConfigError, match="3 px are less than a patch of 4 px"):
        AttentionMasks(replace(SMALL, image_size=3)).run(probe)
    with pytest.raises(DataError, match=r"1 images cannot be decoded.* picture-1 \(truncated\)"):
        AttentionMasks(SMALL).run(marked_probe([0, 1], broken=1))

    class Empty(Marked):
        def mask(self, index: int) -> np.ndarray:
            return 0 * super().mask(index)

    with pytest.raises(DataError, match="no image has a marked object"):
        AttentionMasks(SMALL).run(replace(probe, test=Empty([0])))


@pytest.mark.parametrize(("name", "value"), [("image_size", 0), ("mass", 0.0), ("mass", 1.5)])
def test_impossible_configs_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}: must .* got {value}"):
        build_config(AttentionMasks.Config, {name: value})
