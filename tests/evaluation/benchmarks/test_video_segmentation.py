from __future__ import annotations

from collections.abc import Sequence
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
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.benchmarks.video_segmentation import (
    LayerMap,
    VideoSegmentation,
    measure,
    shorter_side,
)
from unlabeled.evaluation.mask_measures import boundary_accuracy, region_similarity
from unlabeled.models.backbones.vit import ViT

SMALL = VideoSegmentation.Config(layer="cells", image_size=64, radius=3, top=1)
CELL = 4


class Scenes(VideoSource):
    """Two textured squares on a textured ground; they move by `speed` cells of 4 px a frame."""

    def __init__(self, speeds: Sequence[int], frames: int = 5, broken: int = -1) -> None:
        self.speeds, self.frames, self.broken = speeds, frames, broken
        places = range(0, len(speeds) * frames, frames)
        self.videos = tuple(range(start, start + frames) for start in places)

    def __len__(self) -> int:
        return len(self.speeds) * self.frames

    def _cells(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Colours [16, 32, 3] and objects [16, 32]."""
        video, frame = divmod(index, self.frames)
        random = np.random.default_rng(video)
        # Less blue than any object, so that ground that comes into sight is known for ground.
        colours = random.integers(0, (256, 256, 60), (16, 32, 3))
        objects = np.zeros((16, 32), dtype=np.uint8)
        for number, (row, column) in enumerate([(2, 3), (9, 8)], start=1):
            left = column + frame * self.speeds[video]
            colours[row : row + 5, left : left + 5] = random.integers((0, 0, 200), 256, (5, 5, 3))
            objects[row : row + 5, left : left + 5] = number
        return colours, objects

    def image(self, index: int) -> np.ndarray:
        if index == self.broken:
            raise BrokenImage("truncated")
        grown: np.ndarray = np.kron(self._cells(index)[0], np.ones((CELL, CELL, 1)))
        return grown.astype(np.uint8)

    def mask(self, index: int) -> np.ndarray:
        grown: np.ndarray = np.kron(self._cells(index)[1], np.ones((CELL, CELL)))
        return grown.astype(np.uint8)

    def name(self, index: int) -> str:
        return f"scene-{index // self.frames}/{index % self.frames}"


class CellColours(nn.Module):
    """The mean colour of every cell, as a stage with an activation in place behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.AvgPool2d(CELL)
        self.act = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.act(self.cells(images)).mean(dim=(2, 3))
        return pooled


def scene_probe(*speeds: int, frames: int = 5, broken: int = -1) -> Probe:
    blobs = Blobs(2, 5)
    return replace(
        make_probe(
            blobs.draw(2, 1),
            blobs.draw(2, 2),
            encode=(cells := CellColours()),
            backbone=cells,
            feature_dim=3,
        ),
        test=Scenes(speeds, frames, broken),
    )


@pytest.mark.parametrize("speed", [0, 1, 2])
def test_objects_are_followed(speed: int) -> None:
    """Up to a few corner pixels, which upsampling rounds off."""
    metrics = VideoSegmentation(SMALL).run(scene_probe(speed))
    assert list(metrics) == ["j_and_f", "j", "f"]
    assert metrics["j"] > 90 and metrics["f"] > 90
    assert metrics["j_and_f"] == pytest.approx((metrics["j"] + metrics["f"]) / 2)


def test_what_leaves_the_window_is_lost() -> None:
    narrow = VideoSegmentation(replace(SMALL, radius=1)).run(scene_probe(3))
    assert narrow["j"] < 40 < VideoSegmentation(SMALL).run(scene_probe(3))["j"]


def test_the_measures_skip_the_first_and_the_last_frame() -> None:
    source = Scenes([1], frames=4)
    truths = [source.mask(index) for index in range(4)]
    found = [truths[1], np.where(truths[2] == 2, 1, truths[2]), np.zeros_like(truths[3])]
    (j1, f1), (j2, f2) = measure(found, source, range(4))
    one, both = truths[2] == 1, truths[2] > 0
    assert j1 == pytest.approx((1 + region_similarity(both, one)) / 2)
    assert f1 == pytest.approx((1 + boundary_accuracy(both, one)) / 2)
    assert j2 == pytest.approx(1 / 2) and f2 == pytest.approx(1 / 2)


def test_objects_count_alike_whatever_video_they_are_in() -> None:
    class Uneven(Scenes):
        """One object in the second video, which is lost; two in the first, which stand still."""

        def mask(self, index: int) -> np.ndarray:
            mask = super().mask(index)
            return np.where(mask == 2, 0, mask).astype(np.uint8) if index >= 5 else mask

    probe, source = scene_probe(0), Uneven([0, 3])
    benchmark = VideoSegmentation(replace(SMALL, radius=1))
    encode, pairs = LayerMap(probe, "cells"), []
    for video in source.videos:
        found = benchmark.masks(source, video, source.mask(video[0]), encode)
        pairs += measure(list(found), source, video)
    assert len(pairs) == 3 and pairs[2][0] < 0.4 < pairs[0][0]
    metrics = benchmark.run(replace(probe, test=source))
    expected = 100 * np.mean(pairs, axis=0)
    assert [metrics["j"], metrics["f"]] == pytest.approx(expected.tolist())


def test_no_mask_but_the_first_has_a_part_in_the_tracking() -> None:
    class Blind(Scenes):
        def mask(self, index: int) -> np.ndarray:
            assert index == 0
            return super().mask(index)

    probe, blind = scene_probe(1), Blind([1])
    benchmark, encode = VideoSegmentation(SMALL), LayerMap(probe, "cells")
    found = list(benchmark.masks(blind, range(5), blind.mask(0), encode))
    assert len(found) == 4 and all(set(np.unique(mask)) == {0, 1, 2} for mask in found)


def test_unknown_pixels_are_no_object() -> None:
    class Doubtful(Scenes):
        def mask(self, index: int) -> np.ndarray:
            mask = super().mask(index)
            mask[60:, 120:] = 255
            return mask

    metrics = VideoSegmentation(SMALL).run(replace(scene_probe(1), test=Doubtful([1])))
    assert metrics == VideoSegmentation(SMALL).run(scene_probe(1))


def measured() -> dict[str, float]:
    return VideoSegmentation(SMALL).run(scene_probe(1, 0, 2))


@pytest.mark.slow
def test_ranks_agree_with_one_process() -> None:
    assert run_ranks(measured, 2) == [measured()] * 2


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((480, 854), (480, 832)),
        ((480, 910), (480, 896)),
        ((854, 480), (832, 480)),
        ((240, 427), (480, 832)),
    ],
)
def test_frames_are_as_large_as_the_official_ones(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert shorter_side(np.zeros((*shape, 3), dtype=np.uint8), 480).shape == (*expected, 3)


def test_what_cannot_be_followed_is_named() -> None:
    blobs = Blobs(2, 5)
    with pytest.raises(DataError, match="follows objects through videos; give dataset=davis"):
        VideoSegmentation(SMALL).run(make_probe(blobs.draw(4, 1), blobs.draw(4, 2)))
    with pytest.raises(DataError, match="video of scene-0/0 has 2 frames and an object in"):
        VideoSegmentation(SMALL).run(scene_probe(1, frames=2))

    class Unmarked(Scenes):
        def mask(self, index: int) -> np.ndarray:
            return 0 * super().mask(index)

    with pytest.raises(DataError, match="has 5 frames and no object in the first"):
        VideoSegmentation(SMALL).run(replace(scene_probe(1), test=Unmarked([1])))
    with pytest.raises(DataError, match=r"in the video of scene-1/0 \(truncated\)"):
        VideoSegmentation(SMALL).run(scene_probe(0, 1, broken=7))


def test_layers_that_give_no_map_are_named() -> None:
    with pytest.raises(ConfigError, match="no module 'layer3'; at its top: cells, act"):
        VideoSegmentation(replace(SMALL, layer="layer3")).run(scene_probe(1))
    probe = scene_probe(1)

    class Rows(CellColours):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            rows: Tensor = self.rows(super().forward(images))
            return rows

    with pytest.raises(ConfigError, match=r"rows gives no map \[B, C, h, w\]"):
        VideoSegmentation(replace(SMALL, layer="rows")).run(
            replace(probe, encode=(rows := Rows()), backbone=rows)
        )


def test_the_map_is_that_of_the_layer_before_anything_changes_it() -> None:
    probe = scene_probe(1)
    pixels = probe.test.image(0)
    image = torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1)) / 127.5 - 1
    found = LayerMap(probe, "cells")(pixels)
    torch.testing.assert_close(found, nn.functional.avg_pool2d(image, CELL))
    assert (found < 0).any()
    assert not any(module._forward_hooks for module in probe.encode.modules())  # type: ignore[attr-defined]


def test_a_backbone_s_own_map_is_its_patch_tokens() -> None:
    """An untrained ViT of one block tells textures apart; its map is encoded at once."""
    backbone = ViT(ViT.Config(width=24, depth=1, heads=2, patch=CELL, image_size=64))
    backbone.eval().requires_grad_(False)
    probe = replace(scene_probe(1), encode=backbone, backbone=backbone)
    encode = LayerMap(probe, None)
    pixels = probe.test.image(0)
    image = torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1)) / 127.5 - 1
    tokens = backbone.tokens(image[None])[0][0, 1:]
    assert torch.equal(encode(pixels), tokens.T.reshape(24, 16, 32))
    assert encode.size == (64, 128)
    metrics = VideoSegmentation(replace(SMALL, layer=None)).run(probe)
    assert metrics["j"] > 60
    with pytest.raises(ConfigError, match=r"benchmark\.layer: the backbone \(CellColours\)"):
        VideoSegmentation(replace(SMALL, layer=None)).run(scene_probe(1))


@pytest.mark.parametrize(
    ("name", "value"), [("image_size", 0), ("previous_frames", 0), ("temperature", 0), ("top", 0)]
)
def test_impossible_configs_are_named(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{name}: must be positive, got {value}"):
        build_config(VideoSegmentation.Config, {name: value})
    with pytest.raises(ConfigError, match="radius: must be 0 or more, got -1"):
        build_config(VideoSegmentation.Config, {"radius": -1})
