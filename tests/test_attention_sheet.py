"""extra_scripts/attention_maps.py: one sheet of small pictures, and what it refuses."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests_support.commands import ROOT
from unlabeled.data.sources.photo_patches import PhotoPatches

SCRIPT = str(ROOT / "extra_scripts" / "attention_maps.py")
SIDE, GAP = 32, 4
SETTINGS = ["dataset=photo_patches", "device=cpu"]


def status(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """How the script ends, in this process, which has imported all that it needs."""
    monkeypatch.setattr(sys, "argv", [SCRIPT, *arguments, *SETTINGS])
    try:
        runpy.run_path(SCRIPT, run_name="__main__")
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.mark.slow
def test_a_sheet_has_two_lines_for_every_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    options = ["--images", "2", "--size", "32", "--side", str(SIDE)]
    assert status(monkeypatch, "random", str(sheet), "backbone=vit_32px", *options) == 0
    assert "2 images, 3 heads" in capsys.readouterr().out
    page = np.array(Image.open(sheet))
    assert page.shape == (4 * (SIDE + GAP) + GAP, 4 * (SIDE + GAP) + GAP, 3)

    def tile(row: int, column: int) -> np.ndarray:
        top, left = (GAP + place * (SIDE + GAP) for place in (row, column))
        return page[top : top + SIDE, left : left + SIDE]

    source = PhotoPatches(PhotoPatches.Config(), split="train")
    for image, index in enumerate([0, len(source) - 1]):
        picture = source.image(index)
        assert np.array_equal(tile(2 * image, 0), picture)
        for head in range(1, 4):
            heat, masked = tile(2 * image, head), tile(2 * image + 1, head)
            assert heat.max() == 255
            kept = (masked == picture).all(axis=2)
            dark = (masked == picture.astype(np.int64) * 96 // 255).all(axis=2)
            assert (kept | dark).all() and kept.any() and dark.any()
            brightest = heat[..., 0] == 255
            assert kept[brightest].all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sheet.png", "backbone=resnet18_small"], "has no CLS and patch tokens"),
        (["sheet.png", "backbone=vit_32px", "--size", "3"], "3 px are less than a patch of 4 px"),
        (
            ["sheet.png", "backbone=vit_32px", "--mass", "1.2"],
            "--mass: must lie in (0, 1], got 1.2",
        ),
        (["sheet.jpg", "backbone=vit_32px"], "sheet.jpg: give a name that ends in .png"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(monkeypatch, "random", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
