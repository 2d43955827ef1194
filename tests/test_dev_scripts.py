"""The scripts of dev/ on machines that are not like the developer's."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests_support.commands import ROOT

SCRIPTS = sorted([*(ROOT / "dev").glob("*.sh"), ROOT / ".ci" / "run"])


def environment(cache: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """`dev/environment.sh` with an empty cache and without a network to build from."""
    settings = {"XDG_CACHE_HOME": str(cache), "PYTHON": python, "PIP_NO_INDEX": "1"}
    settings |= {"PIP_FIND_LINKS": str(cache), "PIP_CONFIG_FILE": os.devnull}
    return subprocess.run(
        ["bash", str(ROOT / "dev" / "environment.sh")],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )


def expected_place(cache: Path) -> Path:
    digest = hashlib.sha256((ROOT / "setup.cfg").read_bytes()).hexdigest()[:12]
    return cache / "unlabeled" / f"env-{sys.version_info[0]}.{sys.version_info[1]}-{digest}"


def make_usable(place: Path) -> None:
    """What `environment.sh` leaves: an interpreter, and the mark that all is installed."""
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    (place / ".complete").touch()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_say_what_they_do(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert re.match(r"# [A-Z].*", lines[1])


def test_a_complete_environment_is_printed_and_not_touched(tmp_path: Path) -> None:
    place = expected_place(tmp_path)
    make_usable(place)
    result = environment(tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{place}\n"
    assert result.stderr == ""


@pytest.mark.slow
def test_a_half_made_environment_is_made_again_and_never_reported_whole(tmp_path: Path) -> None:
    """Without an index the installation fails, as it does when the network breaks."""
    place = expected_place(tmp_path)
    make_usable(place)
    (place / ".complete").unlink()
    (place / "left_over").touch()
    result = environment(tmp_path)
    assert result.returncode == 5
    assert result.stdout == ""
    assert "run this again" in result.stderr
    assert not (place / "left_over").exists()
    assert not (place / ".complete").exists()


@pytest.mark.slow
def test_an_environment_whose_python_is_gone_is_made_again(tmp_path: Path) -> None:
    place = expected_place(tmp_path)
    make_usable(place)
    (place / "bin" / "python").unlink()
    (place / "bin" / "python").symlink_to(tmp_path / "removed")
    result = environment(tmp_path)
    assert result.returncode == 5
    assert "making" in result.stderr


def install_detectron2(place: Path) -> subprocess.CompletedProcess[str]:
    """`dev/install_detectron2.sh` without git, for an environment without pip."""
    tools = place.parent / "tools"
    tools.mkdir(exist_ok=True)
    for tool in ("bash", "dirname", "mktemp", "rm"):
        if not (tools / tool).exists():
            (tools / tool).symlink_to(str(shutil.which(tool)))
    return subprocess.run(
        ["bash", str(ROOT / "dev" / "install_detectron2.sh"), str(place)],
        env=os.environ | {"PATH": str(tools)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_detectron2_that_no_network_reaches_is_said_and_that_is_there_is_left_alone(
    tmp_path: Path,
) -> None:
    venv.create(tmp_path / "env")
    result = install_detectron2(tmp_path / "env")
    assert result.returncode == 5
    assert "detectron2.git cannot be reached" in result.stderr
    assert "PyPI could not be reached either" in result.stderr
    (package,) = (tmp_path / "env").glob("lib/python*/site-packages")
    assert not (package / "detectron2").exists()
    (package / "detectron2.py").touch()
    result = install_detectron2(tmp_path / "env")
    assert (result.returncode, result.stderr) == (0, "")


def test_an_old_python_is_named_with_the_way_out(tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text(
        '#!/bin/sh\ncase "$1" in --version) echo Python 3.8.18;; *version_info*) ;; esac\n'
        '[ "$1" = --version ]\n'
    )
    old.chmod(0o755)
    result = environment(tmp_path, python=str(old))
    assert result.returncode == 5
    (line,) = result.stderr.splitlines()
    assert "Python 3.8.18, 3.10 or newer is needed" in line
    assert "PYTHON=python3.12" in line


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = environment(tmp_path, python="python3.99")
    assert result.returncode == 5
    assert "no python3.99 on the path" in result.stderr


def test_a_python_without_venv_says_what_to_install(tmp_path: Path) -> None:
    """As Debian ships it: the interpreter works, ensurepip is missing."""
    stripped = tmp_path / "python3"
    stripped.write_text(
        f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec "{sys.executable}" "$@"\n'
    )
    stripped.chmod(0o755)
    result = environment(tmp_path, python=str(stripped))
    assert result.returncode == 5
    assert "apt-get install python3-venv" in result.stderr
