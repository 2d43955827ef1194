"""Every study that comes with the package can be run, and a small one is, as a person would."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests_support.command import TINY, unlabeled
from unlabeled.config.studies import load_study, studies
from unlabeled.data.sources.photo_patches import PICTURES, PhotoPatches
from unlabeled.errors import ConfigError
from unlabeled.studies.study import Plan, check


@pytest.mark.slow
@pytest.mark.parametrize("name", studies())
def test_every_row_of_every_scale_is_a_run(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    assert study.name == name
    assert {"tiny", "paper"} == set(study.scales)
    for scale in study.scales:
        root = ["dataset.root=/data"] if scale == "paper" else []
        check(Plan(study, scale, [0], tmp_path, root))
        commands = [tuple(study.overrides(label, scale)) for label in study.rows]
        assert len(set(commands)) == len(commands)


@pytest.mark.slow
def test_no_tiny_row_has_more_prototypes_than_there_are_patches() -> None:
    """A run finds that out only when it has its data, here in the fifth row of a table."""
    patches = len(PICTURES) * PhotoPatches.Config().train_per_picture
    asked = {
        (name, label): int(number)
        for name in studies()
        for label in load_study(name).rows
        for override in load_study(name).overrides(label, "tiny")
        for number in re.findall(r"^head\.num_prototypes=\[(\d+)\]$", override)
    }
    assert len(asked) >= 6
    assert {row: number for row, number in asked.items() if number > patches} == {}


def write_study(folder: Path, rows: str) -> Path:
    path = folder / "mine.yaml"
    shared = json.dumps([*TINY, "max_steps=2", "hooks.comparison_table=null"])
    path.write_text(
        f"name: mine\ntitle: Mine\nsource: nobody\nscales:\n  tiny: {shared}\nrows:\n{rows}"
    )
    return path


def plan(path: Path, *overrides: str) -> Plan:
    return Plan(load_study(str(path)), "tiny", [0], path.parent / "out", overrides)


@pytest.mark.slow
def test_faults_of_all_rows_are_named_before_any_is_trained(tmp_path: Path) -> None:
    path = write_study(
        tmp_path, "  a: {}\n  b: {overrides: [epochs=many]}\n  c: {overrides: [epochs=no]}\n"
    )
    with pytest.raises(ConfigError) as caught:
        check(plan(path, "bogus=1"))
    lines = str(caught.value).splitlines()
    assert any(line.startswith("row b: epochs") for line in lines)
    assert any(line.startswith("row c: epochs") for line in lines)
    (unknown,) = [line for line in lines if "bogus" in line]
    assert unknown.startswith("bogus: unknown key")
    assert not (tmp_path / "out").exists()


def test_rows_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a-b-seed0, a-b-seed0"):
        check(plan(write_study(tmp_path, '  "a b": {}\n  "a/b": {}\n')))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n", "title: required"),
        ("- 1\n", "name: required"),
        ("name: [\n", "cannot be read"),
        ("name: x\nrow: {}\n", "row: unknown key"),
    ],
)
def test_a_study_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_study(str(path))


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'swav_prototypes'"):
        load_study("swav_protoypes")


@pytest.mark.slow
def test_rows_are_trained_measured_and_tabulated_once(tmp_path: Path) -> None:
    rows = (
        "  two prototypes: {overrides: ['head.num_prototypes=[2]'], published: {linear: 3}}\n"
        "  too fast: {overrides: [scheduler.lr=1e30, max_steps=4], published: {linear: fails}}\n"
    )
    path = write_study(tmp_path, rows)
    out = tmp_path / "out"
    command = ["study", str(path), f"out={out}"]
    first = unlabeled(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    table = (out / "mine.txt").read_text()
    assert table in first.stdout
    result = json.loads((out / "two-prototypes-seed0" / "results" / "linear.json").read_text())
    (row,) = [line for line in table.splitlines() if line.startswith("two prototypes")]
    assert f"{result['metrics']['top1']:.2f}" in row
    (row,) = [line for line in table.splitlines() if line.startswith("too fast")]
    assert row.split()[2:] == ["diverged", "diverged", "fails"]
    assert "linear: 1 of 1 pairs" in table
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.json*")}
    again = unlabeled(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (out / "mine.txt").read_text() == table
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json*")} == written
    # As if it had been killed between two parts of the suite.
    results = out / "two-prototypes-seed0" / "results"
    (results / "linear.json").unlink()
    (results / "quick.txt").unlink()
    assert unlabeled(*command, cwd=tmp_path).returncode == 0
    assert (out / "mine.txt").read_text() == table
    other = unlabeled(*command, "epochs=7", cwd=tmp_path)
    assert other.returncode == 2
    assert "two-prototypes-seed0 was trained with other settings (" in other.stderr


@pytest.mark.slow
def test_a_row_that_cannot_be_trained_ends_the_study_with_its_message(tmp_path: Path) -> None:
    path = write_study(tmp_path, "  a: {}\n")
    result = unlabeled("study", str(path), "resume=/nowhere/step.pt", cwd=tmp_path)
    assert result.returncode == 4
    assert result.stderr.startswith("unlabeled: row a: ")
    assert "/nowhere/step.pt" in result.stderr
