"""What is logged: news for people, with names of files that may hold anything."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from unlabeled.engine.logs import log_to

log = logging.getLogger("unlabeled.of_this_test")


def test_names_of_files_forge_no_line_and_drive_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a\n2026-01-01 00:00:00,000 INFO done: b.jpg", "\x1b]0;title\x07.jpg"]
    names.append(os.fsdecode(b"caf\xe9.jpg"))
    with log_to(tmp_path / "log.txt", terminal=True):
        for name in names:
            log.warning("skipped image %s: %s", name, "truncated")
    shown, kept = capsys.readouterr(), (tmp_path / "log.txt").read_text()
    assert shown.err == ""
    assert shown.out.splitlines() == [
        "skipped image a 2026-01-01 00:00:00,000 INFO done: b.jpg: truncated",
        "skipped image ?]0;title?.jpg: truncated",
        "skipped image caf?.jpg: truncated",
    ]
    assert [line.split(" WARNING ")[1] for line in kept.splitlines()] == shown.out.splitlines()


def test_news_may_have_several_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log_to(tmp_path / "log.txt", terminal=True):
        log.info("\n%s\n", "features  top-1\n\x1b[2Jraw       40.0")
    assert capsys.readouterr().out == "\nfeatures  top-1\n?[2Jraw       40.0\n\n"
