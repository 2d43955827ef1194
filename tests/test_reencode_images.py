"""extra_scripts/reencode_images.py on real photographs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests_support.commands import ROOT, python
from unlabeled.data.decode import decode_file
from unlabeled.data.sources.installed_files import installed_file

SCRIPT = str(ROOT / "extra_scripts" / "reencode_images.py")
PHOTOGRAPHS = {
    "china.jpg": ("sklearn", "datasets/images/china.jpg"),
    "deep/flower.jpeg": ("sklearn", "datasets/images/flower.jpg"),
    "deep/er/coffee.png": ("skimage", "data/coffee.png"),
    "deep/er/camera.png": ("skimage", "data/camera.png"),
}
ENCODED = ["china.jpg", "deep/er/camera.png.jpg", "deep/er/coffee.png.jpg", "deep/flower.jpeg"]

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Photographs, one of them turned, among files that are none."""
    root = tmp_path / "photographs"
    for name, (package, file) in PHOTOGRAPHS.items():
        photograph = installed_file(package, file)
        assert photograph is not None
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(photograph) as image:
            exif = Image.Exif()
            exif[0x0112] = 6 if name == "china.jpg" else 1
            options = {"quality": 97} if path.suffix != ".png" else {}
            image.save(path, exif=exif, **options)
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.jpg").write_text("not seen")
    return root


def run(source: Path, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return python(SCRIPT, str(source), str(target), "--workers", "2", *options)


def below(root: Path) -> list[str]:
    """Files that are not hidden, relative to the root."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not path.name.startswith("."))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(abs(one.astype(float) - other).mean())


def test_the_tree_is_kept_and_its_loss_is_told(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "q60"
    result = run(source, target, "--quality", "60")
    assert result.returncode == 0, result.stderr
    assert below(target) == ENCODED
    losses, sizes = [], []
    for name in PHOTOGRAPHS:
        encoded = target / (f"{name}.jpg" if name.endswith(".png") else name)
        with Image.open(encoded) as image:
            assert image.format == "JPEG" and not image.getexif()
            assert image.mode == ("L" if "camera" in name else "RGB")
            assert image.quantization[0][0] == 13  # 16 scaled by 0.8, IJG quality 60
        losses.append(difference(decode_file(source / name), decode_file(encoded)))
        sizes.append([(source / name).stat().st_size, encoded.stat().st_size])
    before, after = np.mean(sizes, axis=0)
    assert "4 written, 0 already there, 0 broken" in result.stdout
    assert f"of 4 images: mean absolute difference {np.mean(losses):.2f} grey" in result.stdout
    assert f"size {after / before:.2f} times" in result.stdout and after < before / 2
    assert re.search(r"decode time \d+\.\d\d times", result.stdout)
    assert min(losses) > 0.5 and max(losses) < 10
    assert [path.name for path in target.rglob(".*")] == [".reencode_images.json"]


def test_larger_images_are_shrunk_and_smaller_ones_are_not(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "small"
    result = run(source, target, "--max-side", "520", "--quality", "95")
    assert "from the shrunk original" in result.stdout, result.stderr
    sizes = {name: decode_file(target / name).shape[:2] for name in ENCODED}
    assert sizes == {
        "china.jpg": (520, 347),  # 640 x 427, stored turned
        "deep/er/camera.png.jpg": (512, 512),
        "deep/er/coffee.png.jpg": (347, 520),
        "deep/flower.jpeg": (347, 520),
    }
    with Image.open(source / "deep/er/coffee.png") as image:
        small = np.asarray(image.resize((520, 347), Image.Resampling.LANCZOS))
    assert difference(small, decode_file(target / "deep/er/coffee.png.jpg")) < 3


def test_a_second_run_goes_on_where_the_first_stopped(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run(source, target)
    whole = {name: (target / name).read_bytes() for name in ENCODED}
    (target / "china.jpg").unlink()
    (target / "deep/flower.jpeg").write_bytes(whole["deep/er/camera.png.jpg"])  # a mark
    result = run(source, target, "--sample", "1")
    assert "1 written, 3 already there, 0 broken" in result.stdout
    assert (target / "china.jpg").read_bytes() == whole["china.jpg"]
    assert (target / "deep/flower.jpeg").read_bytes() == whole["deep/er/camera.png.jpg"]
    result = run(source, target)
    assert result.returncode == 3 and "deep/flower.jpeg has changed" in result.stderr
    result = run(source, target, "--overwrite")
    assert "4 written, 0 already there" in result.stdout
    assert {name: (target / name).read_bytes() for name in ENCODED} == whole


def test_files_of_other_settings_are_not_mixed_in(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run(source, target, "--quality", "90")
    result = run(source, target, "--quality", "50")
    assert result.returncode == 2 and '"quality": 90' in result.stderr
    result = run(source, target, "--quality", "50", "--overwrite")
    assert "4 written" in result.stdout
    assert run(source, target, "--quality", "50").returncode == 0
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("mine")
    result = run(source, foreign)
    assert result.returncode == 2 and "unknown settings" in result.stderr
    assert below(foreign) == ["letter.txt"]


def test_broken_images_are_named_and_counted(source: Path, tmp_path: Path) -> None:
    whole = (source / "china.jpg").read_bytes()
    (source / "deep" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (source / "empty.png").write_bytes(b"")
    (source / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    Image.new("L", (65_600, 2)).save(source / "long.png")
    for number in range(70):
        (source / f"zero{number}.jpg").touch()
    target = tmp_path / "out"
    result = run(source, target)
    assert result.returncode == 0
    assert "4 written, 0 already there, 74 broken" in result.stdout
    for line in (
        r"broken: deep/half.jpg: .*truncated",
        r"broken: empty.png: not an image",
        r"broken: gone.jpg: no such file",
        r"broken: long.png: 65600 x 2 pixels",
    ):
        assert re.search(line, result.stderr), line
    assert below(target) == ENCODED


def test_links_in_the_target_lead_nobody_outside(source: Path, tmp_path: Path) -> None:
    target, outside = tmp_path / "out", tmp_path / "outside"
    run(source, target)
    outside.mkdir()
    precious = outside / "precious.jpg"
    precious.write_text("precious")
    (target / "china.jpg").unlink()
    (target / "china.jpg").symlink_to(precious)  # replaced, not followed
    assert "4 written" in run(source, target, "--overwrite").stdout
    assert not (target / "china.jpg").is_symlink() and precious.read_text() == "precious"
    os.rename(target / "deep", tmp_path / "moved")
    (target / "deep").symlink_to(outside)
    result = run(source, target, "--overwrite", "--quality", "50")
    assert result.returncode == 3 and "leads out of" in result.stderr
    assert os.listdir(outside) == ["precious.jpg"]
    # Half of it is of the one quality and half of the other now.
    for quality in ("50", "85"):
        result = run(source, target, "--quality", quality)
        assert result.returncode == 2 and "unknown settings" in result.stderr


def test_links_in_the_source_are_followed_but_not_in_circles(source: Path, tmp_path: Path) -> None:
    (source / "deep" / "up").symlink_to(source)
    (source / "again").symlink_to(source / "deep" / "er")
    target = tmp_path / "out"
    assert run(source, target).returncode == 0
    assert below(target) == sorted([*ENCODED, "again/camera.png.jpg", "again/coffee.png.jpg"])


def test_what_cannot_work_is_refused_before_anything_is_written(
    source: Path, tmp_path: Path
) -> None:
    for target in (source, source / "out", tmp_path):
        result = run(source, target)
        assert result.returncode == 3 and "lie in each other" in result.stderr
    assert not (source / "out").exists()
    result = run(tmp_path / "missing", tmp_path / "out")
    assert result.returncode == 3 and "is no folder" in result.stderr
    (tmp_path / "nothing").mkdir()
    result = run(tmp_path / "nothing", tmp_path / "out")
    assert result.returncode == 3 and "no images" in result.stderr
    (source / "deep/er/coffee.png.jpg").write_bytes((source / "china.jpg").read_bytes())
    result = run(source, tmp_path / "out")
    assert result.returncode == 3 and "would both become" in result.stderr
    assert run(source, tmp_path / "out", "--quality", "101").returncode == 2
    assert not (tmp_path / "out").exists()
