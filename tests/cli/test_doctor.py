"""`unlabeled doctor`: one line each, and a status that a script can use."""

from __future__ import annotations

import configparser
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests_support import command
from tests_support.commands import ROOT, unlabeled
from unlabeled.cli.doctor import OPTIONAL, REQUIRED, Finding, findings
from unlabeled.cli.main import main
from unlabeled.transfer.detectron2_installed import HOW_TO_INSTALL


def test_a_whole_installation_is_status_0_and_one_line_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("ok", "missing") for line in lines)
    assert all("->" in line for line in lines if line.startswith("missing"))
    subjects = [line.split()[1] for line in lines]
    assert {"python", "torch", "gloo", "nccl", "photographs", "cores", "disk"} <= set(subjects)


def test_devices_are_those_of_torch() -> None:
    cuda = [each for each in findings() if each.subject.startswith("cuda")]
    assert sum(each.ok for each in cuda) == torch.cuda.device_count()
    assert len(cuda) == max(1, torch.cuda.device_count())


def test_every_requirement_of_the_package_is_checked() -> None:
    options = configparser.ConfigParser(interpolation=None)
    options.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = options["options"]["install_requires"].split()
    required = {re.split(r"[<>=!~]", line)[0] for line in lines}
    assert required == set(REQUIRED.values()) | {"torch", "torchvision"}


@pytest.mark.slow
def test_a_missing_requirement_fails_and_a_missing_option_does_not(tmp_path: Path) -> None:
    hide = (
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('skimage', 'timm') else found(name, *a)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(hide)
    result = unlabeled("doctor", before=str(tmp_path))
    assert result.returncode == 5
    states = {line.split()[1]: line for line in result.stdout.splitlines() if line.strip()}
    assert states["scikit-image"].startswith("FAIL")
    assert states["scikit-image"].endswith("-> pip install scikit-image")
    assert states["timm"].startswith("missing")
    assert states["timm"].endswith(f"-> {OPTIONAL['timm'][2]}")


@pytest.mark.slow
def test_detectron2_is_whole_without_its_compiled_part_or_absent(tmp_path: Path) -> None:
    package = tmp_path / "detectron2"
    package.mkdir()
    (package / "__init__.py").touch()
    for file, state, detail in (
        (None, "missing", "without its compiled part"),
        ("_C.cpython-311-x86_64-linux-gnu.so", "ok", "installed"),
    ):
        if file is not None:
            (package / file).touch()
        lines = command.unlabeled("doctor", cwd=tmp_path).stdout.splitlines()
        (line,) = [line for line in lines if " detectron2 " in line]
        assert line.startswith(state) and detail in line
        assert line.endswith(f"-> {HOW_TO_INSTALL}") == (state == "missing")


def test_findings_are_read_by_their_first_word() -> None:
    assert str(Finding("disk", "9 GB free")).split() == ["ok", "disk", "9", "GB", "free"]
    assert str(Finding("timm", "none", ok=False, remedy="get it")).startswith("missing timm ")
    assert str(Finding("torch", "none", ok=False, required=True)).startswith("FAIL ")


def test_disk_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (disk,) = [each for each in findings() if each.subject == "disk"]
    assert disk.detail.endswith(f"GB free at {tmp_path}")
    assert float(disk.detail.split()[0]) == pytest.approx(
        shutil.disk_usage(tmp_path).free / 1e9, abs=2
    )
