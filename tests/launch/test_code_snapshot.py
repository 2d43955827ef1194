"""A job's copy of the code: the package, the plugins, and what an edit does to it."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

import unlabeled
from unlabeled.errors import ConfigError, EnvironmentProblem
from unlabeled.launch.code_snapshot import snapshot


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, through links too."""
    return {
        os.path.relpath(path, folder): path.read_bytes()
        for place, _, names in os.walk(folder, followlinks=True)
        for path in (Path(place, name) for name in names)
        if "__pycache__" not in path.parts
    }


def test_the_package_is_copied_with_its_configs(tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "code", [])
    assert unlabeled.__file__ is not None
    package = Path(unlabeled.__file__).parent
    assert files(folder / "unlabeled") == files(package)
    assert (folder / "unlabeled/configs/launch/slurm.yaml").is_file()
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_a_command_started_there_runs_the_copy(tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "code", [])
    where = subprocess.run(
        [sys.executable, "-c", "import unlabeled; print(unlabeled.__file__)"],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.strip() == str(folder / "unlabeled" / "__init__.py")


def test_the_lock_of_an_editor_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "here" / "my_lab" / "__init__.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("")
    plugin.with_name(".#__init__.py").symlink_to("somebody@a-machine.1234:1700000000")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    folder = snapshot(tmp_path / "code", ["my_lab"])
    assert list(files(folder / "my_lab")) == ["__init__.py"]


def test_what_cannot_be_copied_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "here" / "my_lab" / "__init__.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("")
    os.mkfifo(plugin.with_name("pipe"))
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    with pytest.raises(
        EnvironmentProblem, match=r"cannot copy the code into .*: .*is a named pipe"
    ):
        snapshot(tmp_path / "code", ["my_lab"])
    (tmp_path / "a file").write_text("")
    with pytest.raises(EnvironmentProblem, match="Not a directory"):
        snapshot(tmp_path / "a file" / "code", [])


def test_what_was_compiled_need_not_be_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "here" / "my_lab" / "__init__.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("")
    py_compile.compile(str(plugin))
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    folder = snapshot(tmp_path / "code", ["my_lab"])
    said = subprocess.run(
        [sys.executable, "-v", "-c", "import my_lab"],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert f".pyc matches {folder / 'my_lab' / '__init__.py'}" in said


def test_plugins_come_along_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "my_lab/__init__.py": "",
        "my_lab/losses.py": "# a loss",
        "my_lab/parts/deep.py": "# a part",
        "one_file.py": "# alone",
        "no_init/inner.py": "# a folder without __init__.py",
    }.items():
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    plugins = ["my_lab.losses", "one_file", "no_init.inner", "numpy", "json"]
    folder = snapshot(tmp_path / "code", plugins)
    (tmp_path / "here/one_file.py").write_text("# edited")
    copied = {k: v for k, v in files(folder).items() if not k.startswith("unlabeled/")}
    assert copied == {
        "my_lab/__init__.py": b"",
        "my_lab/losses.py": b"# a loss",
        "my_lab/parts/deep.py": b"# a part",
        "one_file.py": b"# alone",
        "no_init/inner.py": b"# a folder without __init__.py",
    }


def test_a_plugin_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plugins: cannot find 'no_such_lab'"):
        snapshot(tmp_path / "code", ["no_such_lab.losses"])
