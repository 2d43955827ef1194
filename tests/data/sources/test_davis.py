from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlabeled.data.sources.base import Split
from unlabeled.data.sources.davis import Davis
from unlabeled.errors import DataError

VIDEOS = {"bear": 3, "bike": 4, "camel": 2}


def lay_out(root: Path) -> Path:
    """Frames of 6 x 8 pixels; a mask holds its frame's number, in a palette image."""
    lists = root / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("camel\n")
    (lists / "val.txt").write_text("bike\nbear\n")
    for video, count in VIDEOS.items():
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / video).mkdir(parents=True)
        for number in range(count):
            colour = (40 * number, 0, 0)
            frame = root / "JPEGImages" / "480p" / video / f"{number:05d}.jpg"
            Image.new("RGB", (8, 6), colour).save(frame, quality=95)
            mask = Image.fromarray(np.full((6, 8), number, dtype=np.uint8), mode="P")
            mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
            mask.save(root / "Annotations" / "480p" / video / f"{number:05d}.png")
    return root


def davis(root: Path, split: Split = "test") -> Davis:
    return Davis(Davis.Config(root=str(root)), split=split)


def test_videos_stand_in_the_order_of_the_list_and_frames_by_name(tmp_path: Path) -> None:
    source = davis(lay_out(tmp_path))
    assert source.videos == (range(4), range(4, 7)) and len(source) == 7
    assert source.name(2) == "bike/00002" and source.name(4) == "bear/00000"
    assert len(davis(tmp_path, "train")) == 2
    for index in range(7):
        number = index % 4
        mask = source.mask(index)
        assert mask.dtype == np.uint8 and (mask == number).all() and mask.shape == (6, 8)
        assert abs(int(source.image(index)[0, 0, 0]) - 40 * number) < 8
    assert source.labels is None


def test_masks_count_in_the_fingerprint(tmp_path: Path) -> None:
    before = davis(lay_out(tmp_path)).fingerprint()
    assert davis(tmp_path).fingerprint() == before
    noise = np.random.default_rng(0).integers(0, 2, (6, 8), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "Annotations" / "480p" / "bear" / "00001.png")
    assert davis(tmp_path).fingerprint() != before


def test_missing_files_are_named(tmp_path: Path) -> None:
    message = r"nowhere does not exist \(.* does\); expected below root: ImageSets"
    with pytest.raises(DataError, match=message):
        davis(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot read .*val.txt: .*; expected below root: ImageSe"):
        davis(tmp_path)
    root = lay_out(tmp_path)
    (root / "Annotations" / "480p" / "bike" / "00003.png").unlink()
    message = r"bike has 4 frames and 3 masks; without partner: 00003; expected below"
    with pytest.raises(DataError, match=message):
        davis(root)
    for path in (root / "JPEGImages" / "480p" / "bike").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"480p/bike has no frames; expected below"):
        davis(root)
    (root / "ImageSets" / "2017" / "val.txt").write_text("\n")
    with pytest.raises(DataError, match="names no videos"):
        davis(root)


def test_masks_that_are_none_are_named(tmp_path: Path) -> None:
    source = davis(lay_out(tmp_path))
    path = tmp_path / "Annotations" / "480p" / "bike" / "00001.png"
    Image.new("RGB", (8, 6)).save(path)
    with pytest.raises(DataError, match=r"00001.png holds colours \(RGB\), not object numbers"):
        source.mask(1)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"cannot read .*00001.png"):
        source.mask(1)
