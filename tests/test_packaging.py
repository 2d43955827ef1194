"""What is built from this checkout holds everything, and works far away from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests_support.commands import ROOT

PARTS = ("LICENSE", "README.md", "configs", "platform", "pyproject.toml", "setup.cfg")
BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, sys.argv[1])(sys.argv[2])
"""


def build(source: Path, kind: str, out: Path) -> Path:
    """Run the build backend in `source`, as pip does."""
    out.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", BUILD, f"build_{kind}", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads, links kept, so that the build leaves nothing behind here."""
    copy = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, symlinks=True, ignore=ignore)
        else:
            shutil.copy(ROOT / part, copy / part)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(checkout, "wheel", tmp_path_factory.mktemp("wheel") / "out")


def expected() -> set[str]:
    """Every module and every YAML, as a path inside the package."""
    package = ROOT / "platform" / "unlabeled"
    modules = {path.relative_to(package.parent).as_posix() for path in package.rglob("*.py")}
    yamls = {
        f"unlabeled/configs/{path.relative_to(ROOT / 'configs').as_posix()}"
        for path in (ROOT / "configs").rglob("*.yaml")
    }
    assert yamls
    return modules | yamls | {"unlabeled/py.typed"}


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_every_yaml(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        links = [info.filename for info in archive.infolist() if info.external_attr >> 28 == 0xA]
    assert held == expected()
    assert not links


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_is_the_same(
    checkout: Path, wheel: Path, tmp_path: Path
) -> None:
    with tarfile.open(build(checkout, "sdist", tmp_path / "sdist")) as archive:
        if sys.version_info >= (3, 12):
            archive.extractall(tmp_path / "source", filter="data")
        else:
            archive.extractall(tmp_path / "source")
    (source,) = (tmp_path / "source").iterdir()
    again = build(source, "wheel", tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        names = {name for name in one.namelist() if not name.endswith("RECORD")}
        assert names == {name for name in other.namelist() if not name.endswith("RECORD")}
        assert not [name for name in names if one.read(name) != other.read(name)]


@pytest.mark.slow
def test_an_installed_wheel_answers_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    """Unpacked, which is what installing a wheel without data files does."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = "import sys; from importlib.metadata import entry_points as e; " + (
        "sys.exit(e(group='console_scripts', name='unlabeled')['unlabeled'].load()())"
    )
    for arguments in (["list", "experiment"], ["show", "loss", "swav"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
    assert "yaml      site/unlabeled/configs/loss/swav.yaml" in result.stdout
    assert "source    site/unlabeled/losses/swav.py:" in result.stdout
