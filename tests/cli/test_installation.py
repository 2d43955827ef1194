"""A torch and a torchvision that do not fit are explained in one line, by every command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_support.commands import unlabeled
from unlabeled.cli.installation import check_torch, version

MISMATCH = "raise RuntimeError('operator torchvision::nms does not exist')\n"


def stand_in(folder: Path, name: str, text: str, requires: str = "") -> str:
    """An installed distribution whose import runs `text`; the folder to put on the path."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)
    info = folder / f"{name}-0.1.2.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.2\n"
    (info / "METADATA").write_text(metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
    return str(folder)


def test_this_installation_is_whole() -> None:
    check_torch()


def test_version_of_what_is_not_there() -> None:
    assert version("a-distribution-that-nobody-made") is None


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pretrain", "evaluate"])
def test_a_mismatched_pair_is_one_line_before_any_work(tmp_path: Path, command: str) -> None:
    before = stand_in(tmp_path, "torchvision", MISMATCH, requires="torch (==2.5.1)")
    result = unlabeled(command, before=before)
    assert result.returncode == 5
    (line,) = result.stderr.splitlines()
    assert line.startswith("unlabeled: torchvision 0.1.2 does not fit torch ")
    assert "(it asks for torch(==2.5.1))" in line
    assert "operator torchvision::nms does not exist" in line
    assert "pip install --upgrade --force-reinstall torch torchvision" in line


@pytest.mark.slow
def test_the_doctor_says_the_same_and_goes_on(tmp_path: Path) -> None:
    before = stand_in(tmp_path, "torchvision", MISMATCH)
    result = unlabeled("doctor", before=before)
    assert result.returncode == 5
    assert "Traceback" not in result.stderr
    lines = result.stdout.splitlines()
    (torch,) = [line for line in lines if line.split()[1:2] == ["torch"]]
    assert torch.startswith("FAIL")
    assert "operator torchvision::nms does not exist" in torch
    assert any(line.startswith("ok") and "disk" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("torch", "raise ImportError('libc10.so: no such file')", "libc10.so"),
        ("torch", "raise OSError('libcudart.so.13')", "libcudart.so.13"),
        ("torch", "import a_part_that_is_gone", "a_part_that_is_gone"),
        ("torchvision", "raise AttributeError('no ops')", "no ops"),
    ],
)
def test_any_broken_import_is_explained(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    result = unlabeled("pretrain", before=stand_in(tmp_path, name, text + "\n"))
    assert result.returncode == 5
    (line,) = result.stderr.splitlines()
    assert expected in line
    assert name in line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_a_missing_library_is_named_with_its_installation(tmp_path: Path, name: str) -> None:
    """Found by a finder that hides it, as if it were not installed."""
    hide = (
        "import sys\n"
        "class Hide:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == {name!r}:\n"
        f"            raise ModuleNotFoundError('No module named {name}', name={name!r})\n"
        "sys.meta_path.insert(0, Hide)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(hide)
    result = unlabeled("pretrain", before=str(tmp_path))
    assert result.returncode == 5
    assert result.stderr == (
        f"unlabeled: {name} is not installed: pip install torch torchvision (both in one command)\n"
    )
