from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from unlabeled.evaluation.label_propagation import (
    index_map,
    neighbourhood,
    propagate,
    stretched,
    track,
)

GOLDEN = Path(__file__).parents[1] / "data" / "dino_davis.npz"


@dataclass(frozen=True)
class Recipe:
    previous_frames: int = 3
    radius: int = 2
    top: int = 5
    temperature: float = 0.1


def golden(name: str) -> Tensor:
    return torch.from_numpy(np.load(GOLDEN)[name])


def test_equals_the_official_tracker() -> None:
    """Eight frames, three of them remembered beside the first: soft masks and final pixels."""
    maps = golden("features_T_h_w_D").permute(0, 3, 1, 2)  # [8, 16, 6, 8]
    patch = int(golden("patch"))
    recipe = Recipe(
        *(int(golden(name)) for name in ("n_last_frames", "radius", "topk")), temperature=0.1
    )
    found = list(track(maps, golden("first_seg_onehot")[0], recipe))
    torch.testing.assert_close(
        torch.stack(found), golden("seg_soft_per_frame"), atol=1e-5, rtol=1e-4
    )
    height, width = golden("ori_hw").tolist()
    for masks, official in zip(found, golden("seg_index_per_frame"), strict=True):
        pixels = index_map(masks, (6 * patch, 8 * patch)).byte().numpy()
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
        assert np.array_equal(np.array(resized), official.numpy())


def test_windows_and_stretching_are_the_official_ones() -> None:
    mask = golden("neighborhood_mask") > 0
    assert torch.equal(neighbourhood(6, 8, int(golden("radius"))), mask)
    torch.testing.assert_close(stretched(golden("norm_mask_in")), golden("norm_mask_out"))


def test_one_place_by_place() -> None:
    random = torch.Generator().manual_seed(0)
    target = F.normalize(torch.randn(4, 3, 5, generator=random), dim=0)
    sources = F.normalize(torch.randn(2, 4, 3, 5, generator=random), dim=1)
    masks = torch.rand(2, 3, 3, 5, generator=random)
    found = propagate(target, sources, masks, neighbourhood(3, 5, 1), top=3, temperature=0.2)
    for row in range(3):
        for column in range(5):
            near = [
                (
                    float(((target[:, row, column] @ sources[t, :, i, j]) / 0.2).exp()),
                    masks[t, :, i, j],
                )
                for t in range(2)
                for i in range(3)
                for j in range(5)
                if abs(i - row) <= 1 and abs(j - column) <= 1
            ]
            best = sorted(near, key=lambda pair: -pair[0])[:3]
            expected = sum(weight * mask for weight, mask in best) / sum(w for w, _ in best)
            torch.testing.assert_close(found[:, row, column], expected)


def test_a_video_that_stands_still_keeps_its_masks() -> None:
    still = torch.randn(16, 4, 6, generator=torch.Generator().manual_seed(0))
    first = F.one_hot(torch.arange(24).reshape(4, 6) % 3, 3).permute(2, 0, 1).float()
    for masks in track([still] * 5, first, Recipe(top=1)):
        torch.testing.assert_close(masks, first)
    assert torch.equal(index_map(first, (4, 6)), first.argmax(dim=0))


def test_masks_follow_what_moves() -> None:
    """Every place moves one column to the right; what enters at the left is new."""
    scene = torch.randn(32, 3, 12, generator=torch.Generator().manual_seed(0))
    frames = [scene[:, :, 6 - step : 12 - step] for step in range(4)]
    first = torch.zeros(2, 3, 6)
    first[1, :, 1], first[0] = 1, 1
    first[0, :, 1] = 0
    for step, masks in enumerate(track(frames, first, Recipe(radius=1, top=1)), start=1):
        assert masks[1, :, 1 + step].tolist() == pytest.approx([1, 1, 1])


def test_empty_masks_stay_empty() -> None:
    masks = torch.zeros(2, 3, 3)
    masks[1] = 0.25
    assert torch.equal(stretched(masks)[0], torch.zeros(3, 3))
    assert torch.isfinite(stretched(masks)).all()
