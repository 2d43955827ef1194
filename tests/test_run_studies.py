"""Studies are tabulated from what they printed, and not run again."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from unlabeled.config.studies import load_study
from unlabeled.studies.table import study_table

SCRIPT = Path(__file__).parents[1] / "dev" / "run_studies.py"


def test_what_was_run_before_is_one_line_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load_study("dino_temperature")
    found = [{"knn": 40.0 + place, "linear": 50.0} for place in range(len(study.rows))]
    table = study_table(
        study, "tiny", {label: [one] for label, one in zip(study.rows, found, strict=True)}
    )
    kept = {"table": table, "minutes": 7.6}
    (tmp_path / "dino_temperature.json").write_text(json.dumps(kept))
    spec = importlib.util.spec_from_file_location("run_studies", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = ["--studies", "dino_temperature", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["run_studies.py", *arguments])
    module.main()
    printed = capsys.readouterr().out.splitlines()
    (line,) = [each for each in printed if each.startswith("| `dino_temperature`")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:3] == [study.title, str(len(study.rows))]
    (said,) = [each for each in table.splitlines() if each.startswith("knn: ")]
    assert cells[3] == said.removeprefix("knn: ").split(" pairs")[0]
