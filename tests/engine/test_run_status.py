"""status.json tells how a run stands and how it ended, whoever among its ranks knows why."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests_support.command import TINY, unlabeled
from tests_support.in_process import tiny_config
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import PretrainConfig
from unlabeled.engine.pretrain import pretrain
from unlabeled.engine.process_identity import process_identity
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.run_status import (
    RunStatus,
    moment,
    read_status,
    recorded_status,
)
from unlabeled.errors import ConfigError, DataError, DivergenceError, Interrupted, UserError
from unlabeled.registry import load_plugins


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, forget_registrations: None) -> None:
    """The hook of `leaving`, known for one test."""
    monkeypatch.delitem(sys.modules, "tests_support.leave_at_step", raising=False)
    load_plugins(["tests_support.leave_at_step"])


def leaving(error: str, because: str, step: int, rank: int = 0) -> list[str]:
    """Overrides of a run that ends so."""
    return [
        "plugins=[tests_support.leave_at_step]",
        f'hooks.leave={{name: leave_at_step, step: {step}, error: {error}, because: "{because}", '
        f"rank: {rank}}}",
        "hooks.knn_probe=null",
    ]


def train(run: Path, *overrides: str) -> None:
    config = tiny_config(run, *overrides)
    config.launch.build().run(pretrain, config)


def status_of(run: Path) -> RunStatus:
    status = read_status(RunDirectory(run))
    assert status is not None
    return status


@pytest.mark.slow
def test_a_run_to_its_end_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    train(tmp_path / "run", "hooks.knn_probe=null")
    status = status_of(tmp_path / "run")
    assert (status.state, status.step, status.last_step) == ("finished", 12, 12)
    assert (status.reason, status.exit_status, status.job) == (None, 0, "4711")
    assert (status.host, status.pid) == (platform.node(), os.getpid())
    assert status.process == process_identity(os.getpid())
    started, ended = moment(status.started), moment(status.ended or "")
    assert started is not None and ended is not None
    assert before < started <= ended <= datetime.now(timezone.utc)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "because", "raised", "expected"),
    [
        ("Interrupted", "SIGTERM after step 5", Interrupted,
         ("stopped", "SIGTERM after step 5", 7)),
        ("DivergenceError", "the loss is nan\nand more", DivergenceError,
         ("failed", "the loss is nan", 6)),
        ("crash", "nobody foresaw this", ZeroDivisionError,
         ("failed", "ZeroDivisionError: nobody foresaw this", 1)),
        ("crash", "", ZeroDivisionError, ("failed", "ZeroDivisionError", 1)),
        ("keyboard", "", KeyboardInterrupt, ("stopped", "interrupted from the keyboard", 130)),
    ],
)  # fmt: skip
def test_the_error_that_ends_a_run_is_its_reason(
    error: str,
    because: str,
    raised: type[BaseException],
    expected: tuple[str, str, int],
    tmp_path: Path,
    plugin: None,
) -> None:
    with pytest.raises(raised):
        train(tmp_path / "run", *leaving(error, because, step=5))
    status = status_of(tmp_path / "run")
    assert (status.state, status.reason, status.exit_status) == expected
    assert (status.step, status.last_step) == (5, 12)
    assert status.ended is not None


@pytest.mark.slow
def test_a_run_that_never_trained_failed_too(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    images = [f"dataset.root={missing}", "dataset=folder", "scale=small", "device=cpu"]
    data = compose_config("pretrain", [*images, f"run.dir={tmp_path / 'run'}"]).data
    config = build_config(PretrainConfig, data)
    with pytest.raises(DataError):
        config.launch.build().run(pretrain, config)
    status = status_of(tmp_path / "run")
    assert (status.state, status.exit_status, status.step) == ("failed", 3, 0)
    assert str(missing) in (status.reason or "")


@pytest.mark.slow
def test_a_command_that_is_refused_changes_nothing_of_the_run(tmp_path: Path) -> None:
    train(tmp_path / "run", "hooks.knn_probe=null")
    before = (tmp_path / "run" / "status.json").read_bytes()
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        train(tmp_path / "run", "seed=9")
    assert (tmp_path / "run" / "status.json").read_bytes() == before


@pytest.mark.slow
def test_the_rank_that_knows_the_cause_tells_it(tmp_path: Path) -> None:
    """Rank 0 sees no more than that a peer is gone."""
    rank_1 = leaving("DivergenceError", "the loss of rank 1", step=3, rank=1)
    result = unlabeled(
        "pretrain", *TINY, "launch.processes=2", *rank_1, "run.dir=run", cwd=tmp_path
    )
    assert result.returncode == 6, result.stderr
    status = status_of(tmp_path / "run")
    assert (status.state, status.reason) == ("failed", "the loss of rank 1")
    assert (status.exit_status, status.step) == (6, 3)


def test_what_breaks_because_of_an_error_does_not_replace_it(tmp_path: Path) -> None:
    """The order in which ranks fail is chance; both orders tell the cause."""
    run = RunDirectory(tmp_path)
    for order in ([UserError("the cause"), OSError("a peer is gone")],
                  [OSError("a peer is gone"), UserError("the cause")]):  # fmt: skip
        with recorded_status(run, lead=True):
            pass
        (tmp_path / "status.json").write_text(
            (tmp_path / "status.json").read_text().replace("finished", "running")
        )
        for error in order:
            with pytest.raises(type(error)), recorded_status(run, lead=False):
                raise error
        assert status_of(tmp_path).reason == "the cause"


def test_only_rank_0_starts_and_finishes(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with recorded_status(run, lead=False) as writer:
        writer.training(lambda: 3, 12)
    assert not run.status_file.exists()
    with recorded_status(run, lead=True) as writer:
        assert status_of(tmp_path).state == "running"
        with recorded_status(run, lead=False):
            pass
        assert status_of(tmp_path).state == "running"
        writer.training(lambda: 3, 12)
        assert (status_of(tmp_path).step, status_of(tmp_path).last_step) == (3, 12)


def test_a_continued_run_knows_its_step_before_it_is_restored(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with recorded_status(run, lead=True) as writer:
        writer.training(lambda: 8, 12)
    with recorded_status(run, lead=True):
        status = status_of(tmp_path)
    assert (status.state, status.step, status.last_step) == ("running", 8, 12)


def test_an_error_that_cannot_be_written_down_is_still_the_one_raised(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(DataError, match="the error"), recorded_status(run, lead=True):
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # as good as a full disk
            raise DataError("the error")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status_of(tmp_path).state == "running"


def test_nothing_but_a_whole_status_is_one(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert read_status(run) is None
    with recorded_status(run, lead=True):
        pass
    whole = run.status_file.read_text()
    assert read_status(run) is not None
    data = json.loads(whole)
    broken = [
        whole[: len(whole) // 2], "", "[]", "null", "[" * 10**5, "\udc80",
        json.dumps(data | {"pid": "1"}), json.dumps(data | {"state": "flying"}),
        json.dumps(data | {"started": "yesterday"}), json.dumps(data | {"step": None}),
    ]  # fmt: skip
    for text in broken:
        run.status_file.write_bytes(text.encode(errors="surrogateescape"))
        assert read_status(run) is None, text[:80]


def test_times_are_utc_where_they_name_no_zone() -> None:
    noon = datetime(2024, 5, 6, 12, tzinfo=timezone.utc)
    for text in ("2024-05-06T12:00:00Z", "2024-05-06T12:00:00", "2024-05-06T14:00:00+02:00"):
        assert moment(text) == noon
    assert moment("soon") is None
