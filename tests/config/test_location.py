"""The YAML files are found, wherever the command was started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_support.commands import ROOT, python
from unlabeled.config.location import config_dir


def test_in_a_checkout_it_is_the_folder_at_the_top() -> None:
    assert config_dir().resolve() == ROOT / "configs"
    assert (config_dir() / "pretrain.yaml").is_file()


def test_it_is_absolute_and_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = config_dir()
    monkeypatch.chdir(tmp_path)
    assert config_dir() == before
    assert before.is_absolute()


def test_a_copy_without_them_says_what_to_do(tmp_path: Path) -> None:
    package = tmp_path / "unlabeled"
    (package / "config").mkdir(parents=True)
    for place in ("__init__.py", "errors.py", "config/__init__.py", "config/location.py"):
        text = (ROOT / "platform" / "unlabeled" / place).read_text(encoding="utf-8")
        (package / place).write_text(text)
    code = "from unlabeled.config.location import config_dir; config_dir()"
    result = python("-c", code, before=str(tmp_path))
    assert "EnvironmentProblem: no configuration files at" in result.stderr
    assert str(package / "configs") in result.stderr
