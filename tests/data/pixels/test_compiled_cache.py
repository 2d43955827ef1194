"""Compiled once per machine, and again whenever anything changes that the result depends on."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import numba
import pytest

from tests_support.commands import ROOT, python
from unlabeled.data.pixels.kernels import compile as compiling

KERNELS = Path(compiling.__file__).parent
ANNOUNCEMENT = "compiling the image kernels, once for this machine"
PROGRAM = """
import hashlib, logging
import numpy as np
from unlabeled.data.pixels.base import ViewPlan
from unlabeled.data.pixels.compiled import Compiled
from unlabeled.data.pixels.kernels import compile as compiling
from unlabeled.data.types import ViewSpec

logging.basicConfig(level=logging.INFO)
image = np.arange(40 * 50 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 50, 3)
plan = ViewPlan(ViewSpec(20, "global"), (3, 4, 45, 39), "bilinear", (("solarize", 100.0),))
view = np.zeros((3, 20, 20), np.uint8)
Compiled()(image, [plan], [view])
print(hashlib.sha256(view).hexdigest())
print(compiling.cache_folder())
"""


@pytest.mark.slow
def test_a_changed_callee_is_compiled_again(tmp_path: Path) -> None:
    """numba alone would load what it compiled before: it looks only at the outermost file."""
    compiling.kernels()
    kept = files_in(compiling.cache_folder())
    job = tmp_path / "copy of a job"
    shutil.copytree(ROOT / "platform" / "unlabeled", job / "unlabeled")
    kernels = job / "unlabeled" / "data" / "pixels" / "kernels"
    (kernels / "render.py").touch()

    def run() -> tuple[str, Path, bool]:
        result = python("-c", PROGRAM, cwd=tmp_path, before=str(job))
        assert result.returncode == 0, result.stderr
        view, folder = result.stdout.splitlines()
        return view, Path(folder), ANNOUNCEMENT in result.stderr

    first, folder, announced = run()
    assert folder == compiling.cache_folder()
    assert not announced
    source = (kernels / "solarize.py").read_text()
    (kernels / "solarize.py").write_text(source.replace("np.int16(255)", "np.int16(254)"))
    second, other, announced = run()
    try:
        assert announced
        assert second != first
    finally:
        shutil.rmtree(other)
    (kernels / "solarize.py").write_text(source)
    assert run() == (first, folder, False)
    assert files_in(folder) == kept
    assert not list(job.rglob("*.nb?"))


def files_in(folder: Path | None) -> list[Path]:
    assert folder is not None
    return sorted(path for path in folder.rglob("*.nb?"))


def test_the_fingerprint_covers_all_that_kernels_import() -> None:
    """Of this package: other kernels and three modules of constants; all else is not compiled."""
    covered = {f"unlabeled.data.pixels.kernels.{path.stem}" for path in KERNELS.glob("*.py")}
    covered |= {"unlabeled.data.pixels.kernels", "unlabeled.data.pixels.table"}
    covered |= {"unlabeled.data.randomness", "unlabeled.data.pixels.geometry"}
    for path in KERNELS.glob("*.py"):
        if path.name == "compile.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unlabeled"):
                assert node.module in covered, (path.name, node.module)


def test_the_fingerprint_depends_on_how_numba_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before = compiling.fingerprint()
    assert compiling.fingerprint() == before
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert compiling.fingerprint() != before


def test_nothing_is_kept_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    occupied = tmp_path / "a file"
    occupied.write_text("")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(occupied))
    assert compiling.cache_folder() is None
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "new" / "folder"))
    folder = compiling.cache_folder()
    assert folder is not None
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "new" / "folder")


NOT_TORCH = """
import sys
assert "numba" in sys.modules and "torch" not in sys.modules
"""


@pytest.mark.slow
def test_numba_is_imported_only_when_a_view_is_made_and_torch_never() -> None:
    program = (
        "import sys; from unlabeled.data.pixels.compiled import Compiled, available; "
        "Compiled(); assert available(); print({'numba', 'torch'} & sys.modules.keys())"
    )
    assert python("-c", program).stdout == "set()\n"
    assert python("-c", PROGRAM + NOT_TORCH).returncode == 0


COUNT_COMPILATIONS = """
import sys
for name, module in list(sys.modules.items()):
    if name.startswith("unlabeled.data.pixels.kernels"):
        for function in vars(module).values():
            assert len(getattr(function, "signatures", ())) <= 1, function
"""


@pytest.mark.slow
def test_without_a_cache_each_kernel_is_compiled_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """numba compiles again for every type of argument, of which a plain 3 is one of its own."""
    occupied = tmp_path / "a file"
    occupied.write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(occupied))
    monkeypatch.setenv("NUMBA_OPT", "0")  # quick to compile
    result = python("-c", PROGRAM + COUNT_COMPILATIONS)
    assert result.returncode == 0, result.stderr
    assert "in every process" in result.stderr
