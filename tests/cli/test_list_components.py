"""`unlabeled list`: aligned text in a pipe, a table on a terminal, the same names in both."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests_support.commands import ROOT, unlabeled
from unlabeled.cli.choices import choices, kinds
from unlabeled.cli.main import main


def test_one_kind_is_two_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "loss"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = choices("loss")
    assert [line.split()[0] for line in lines] == [each.name for each in found]
    starts = {
        line.index(each.summary) for line, each in zip(lines, found, strict=True) if each.summary
    }
    assert len(starts) == 1


def test_all_kinds_stand_under_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    headings = [line for line in lines if not line.startswith(" ")]
    assert headings == [kind for kind in kinds() if choices(kind)]
    listed = [line.split()[0] for line in lines if line.startswith(" ")]
    assert listed == [each.name for kind in kinds() for each in choices(kind)]


def test_an_unknown_kind_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "los"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unlabeled: unknown kind 'los'. Did you mean 'loss'? Known: method, ")


@pytest.mark.slow
def test_a_terminal_gets_a_table_with_every_name() -> None:
    """Square brackets in a summary are text, not markup."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "unlabeled", "list"],
        cwd=ROOT / "platform",
        env=os.environ | {"COLUMNS": "200", "TERM": "xterm"},
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        text = b""
        while part := _read(master):
            text += part
        os.close(master)
    assert process.returncode == 0
    assert b"\x1b[" in text
    assert all(each.name.encode() in text for kind in kinds() for each in choices(kind))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux reports the closed other end so
        return b""


@pytest.mark.slow
def test_plugins_of_installed_packages_are_listed(tmp_path: Path) -> None:
    (tmp_path / "lab_of_the_list.py").write_text(
        "from unlabeled.registry import register\n"
        '@register("loss", "from_the_lab")\n'
        "class Loss:\n"
        '    """Made elsewhere. Listed here."""\n'
    )
    info = tmp_path / "lab_of_the_list-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-of-the-list\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unlabeled.plugins]\nlab = lab_of_the_list\n")
    listed = unlabeled("list", "loss", before=str(tmp_path)).stdout
    (line,) = [line for line in listed.splitlines() if line.startswith("from_the_lab")]
    assert line.endswith("Made elsewhere.")
    shown = unlabeled("show", "loss", "from_the_lab", before=str(tmp_path)).stdout
    assert f"{tmp_path}/lab_of_the_list.py:3" in shown

    (info / "entry_points.txt").write_text("[unlabeled.plugins]\nlab = lab_that_is_gone\n")
    broken = unlabeled("list", "loss", before=str(tmp_path))
    assert broken.returncode == 2
    assert "lab = lab_that_is_gone" in broken.stderr
    assert "Traceback" not in broken.stderr
