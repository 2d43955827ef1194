"""`unlabeled jobs` on runs as processes have left them: its table, its JSON, its refusals."""

from __future__ import annotations

import json
import os
import re
import resource
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests_support.commands import python
from tests_support.listed_runs import write_job
from unlabeled.cli.main import main
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.run_status import recorded_status
from unlabeled.errors import DataError, Interrupted, UserError


def ended(run: Path, error: UserError | None = None) -> Path:
    """A run that ended so."""
    run.mkdir(parents=True)
    with suppress(UserError), recorded_status(RunDirectory(run), lead=True) as writer:
        writer.training(lambda: 5, 12)
        if error:
            raise error
    return run


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    """The table by its headings, which are where the columns begin."""
    heading, *lines = capsys.readouterr().out.splitlines()
    places = [match.start() for match in re.finditer(r"\S+", heading)]
    ends = [*places[1:], None]
    return [
        {heading[a:b].strip(): line[a:b].strip() for a, b in zip(places, ends, strict=True)}
        for line in lines
    ]


def test_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Newest first, nested ones too, and nothing that is no run."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/old", "runs/multirun-1/0", "runs/multirun-1/1"):
        ended(Path(name))
        time.sleep(0.002)  # times have milliseconds
    ended(Path("runs/broken"), DataError("3 of 4 images are broken"))
    time.sleep(0.002)
    ended(Path("runs/asked"), Interrupted("SIGTERM after step 5"))
    write_job(Path("runs/asked"), id="77", submitted="2000-01-01T00:00:00Z")
    Path("runs/asked/job/restarts.txt").write_text("2000-01-01T01:00 node\n2000-01-02T00:00 term\n")
    Path("runs/broken/log.txt").write_text("a line\n")
    metrics = {"phase": "train", "step": 5, "samples": 60, "epoch": 1.25, "loss": 2.5}
    Path("runs/broken/metrics.jsonl").write_text(json.dumps(metrics) + '\n{"phase": "tr')
    Path("runs/notes").mkdir()
    Path("runs/old/checkpoints").mkdir()
    Path("runs/.hidden").mkdir()
    ended(Path("runs/.hidden/run"))
    assert main(["jobs"]) == 0
    found = rows(capsys)
    assert [row["run"] for row in found] == [
        "runs/asked", "runs/broken", "runs/multirun-1/1", "runs/multirun-1/0", "runs/old",
    ]  # fmt: skip
    assert found[0] == {
        "run": "runs/asked", "state": "stopped", "step": "5/12", "epoch": "-", "loss": "-",
        "ETA": "-", "restarts": "2", "log": "-", "why": "SIGTERM after step 5",
    }  # fmt: skip
    assert found[1] == {
        "run": "runs/broken", "state": "failed", "step": "5/12", "epoch": "1.25",
        "loss": "2.5000", "ETA": "-", "restarts": "0", "log": "runs/broken/log.txt",
        "why": "3 of 4 images are broken",
    }  # fmt: skip
    assert {row["state"] for row in found[2:]} == {"finished"}
    assert main(["jobs", "runs/old", "runs", "runs/multirun-1"]) == 0  # each run once
    assert len(rows(capsys)) == 5


def test_a_job_that_never_began_shows_its_own_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_job(Path("runs/one"), folder=str(tmp_path), logs="runs/one/job/%j_%t_log.out")
    assert main(["jobs", "tail", "one"]) == 2
    assert "runs/one: there is no log yet" in capsys.readouterr().err
    output = Path("runs/one/job") / f"{2**30}_0_log.out"
    output.write_text("Traceback\nOSError: no such module")
    assert main(["jobs"]) == 0
    (row,) = rows(capsys)
    assert (row["state"], row["step"], row["log"]) == ("lost", "-", str(output))
    assert row["why"] == f"job {2**30} has ended before the run began"
    assert main(["jobs", "tail", "one", "-n", "1"]) == 0
    assert capsys.readouterr().out == "OSError: no such module\n"
    Path("runs/one/log.txt").write_text("the run's own\n")
    assert main(["jobs", "tail", "one"]) == 0
    assert capsys.readouterr().out == "the run's own\n"
    assert main(["jobs", "cancel", "one"]) == 2
    assert "nothing to cancel, it is lost" in capsys.readouterr().err


def test_text_from_files_cannot_command_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
    run = ended(Path(f"runs/r{bad}\udcff"), DataError(f"x{bad}: broken"))
    (run / "log.txt").write_text(f"a\tline{bad}\x00\rend\nnext\r\n")
    for arguments in (["jobs"], ["jobs", "--json"], ["jobs", "tail", str(run)],
                      ["jobs", "cancel", str(run)], ["jobs", "tail", f"no{bad}"]):  # fmt: skip
        main(arguments)
        captured = capsys.readouterr()
        text = captured.out + captured.err
        assert all(line.isprintable() for line in text.splitlines()), (arguments, text)
    main(["jobs", "tail", str(run)])
    assert capsys.readouterr().out.splitlines()[-1] == "next"


def test_a_long_reason_is_whole_for_programs_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended(tmp_path / "run", DataError("x" * 500))
    main(["jobs", str(tmp_path)])
    (row,) = rows(capsys)
    assert row["why"] == "x" * 97 + "..."
    main(["jobs", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)[0]["reason"] == "x" * 500


def test_files_that_are_torn_leave_the_run_in_the_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, place in (("a", "status.json"), ("b", "job/job.json")):
        path = tmp_path / name / place
        path.parent.mkdir(parents=True)
        path.write_text('{"state": "run')
        (tmp_path / name / "metrics.jsonl").write_text('{"phase": "train", "step": 7}\n{"ph')
    (tmp_path / "c" / "checkpoints").mkdir(parents=True)
    (tmp_path / "c" / "config.yaml").write_text("from: before there was a status.json")
    main(["jobs", str(tmp_path)])
    found = {Path(row["run"]).name: row for row in rows(capsys)}
    assert {name: row["state"] for name, row in found.items()} == dict.fromkeys("abc", "unknown")
    assert [found[name]["step"] for name in "abc"] == ["7", "7", "-"]
    assert found["a"]["why"] == "no status.json that can be read, last line 0 min ago"


def test_no_runs_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["jobs"]) == 0
    assert capsys.readouterr().out == "no runs below runs\n"
    assert main(["jobs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["jobs", "tial"]) == 2
    assert capsys.readouterr().err == (
        "unlabeled: tial: no such folder; known actions: tail, cancel, resubmit\n"
    )
    ended(Path("runs/swav_small"))
    for action in ("tail", "cancel", "resubmit"):
        assert main(["jobs", action, "swav_smal"]) == 2
        assert "none of that name below runs. Did you mean 'swav_small'?" in capsys.readouterr().err


@pytest.mark.slow
def test_a_hundred_long_runs_are_listed_within_a_second(tmp_path: Path) -> None:
    """Reading is bounded for every run, however long it was; nothing of it needs torch."""
    lines = "".join(
        json.dumps({"phase": "train", "step": step, "samples": step * 256, "epoch": step / 100,
                    "loss": 5.0, "img_per_s": 512.0}) + "\n"
        for step in range(1, 20_001)
    )  # fmt: skip
    run = ended(tmp_path / "0")
    (run / "metrics.jsonl").write_text(lines)
    for number in range(1, 100):
        (tmp_path / str(number)).mkdir()
        os.link(run / "status.json", tmp_path / str(number) / "status.json")
        os.link(run / "metrics.jsonl", tmp_path / str(number) / "metrics.jsonl")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = python("-m", "unlabeled", "jobs", str(tmp_path))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert len(result.stdout.splitlines()) == 101
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
