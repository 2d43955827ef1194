"""How a one-shot script ends: one line for a person, and the status of the sort of fault."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests_support.command import ROOT, script
from unlabeled.cli.script import run_script
from unlabeled.errors import CheckpointError, ConfigError, DataError, EnvironmentProblem


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError(["a: wrong", "b: wrong"]), 2, "error: a: wrong\nb: wrong\n"),
        (DataError("no images"), 3, "error: no images\n"),
        (CheckpointError("x"), 4, "error: x\n"),
        (EnvironmentProblem("y"), 5, "error: y\n"),
        (OSError(28, "No space left"), 5, "error: [Errno 28] No space left\n"),
        (KeyboardInterrupt(), 130, "put down\n"),
        (DataError("lost \x1b]0;title\x07.jpg"), 3, "error: lost ?]0;title?.jpg\n"),
    ],
)
def test_faults_are_lines_with_their_status(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run_script(raising(error), stopped="put down")
    assert end.value.code == status and capsys.readouterr().err == said


def test_what_a_programmer_must_mend_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        run_script(raising(KeyError("bug")))
    with pytest.raises(SystemExit) as end:
        run_script(lambda: None)
    assert end.value.code == 0


def test_a_reader_that_leaves_is_no_fault() -> None:
    code = (
        "from unlabeled.cli.script import run_script\n"
        "run_script(lambda: [print('x' * 99) for _ in range(9999)])"
    )
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -1; echo ${PIPESTATUS[0]}', sys.executable, code],
        env={"PYTHONPATH": str(ROOT / "platform"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[-1] == str(128 + signal.SIGPIPE) and done.stderr == ""


@pytest.mark.slow
def test_help_has_an_example_that_begins_as_one_types_it() -> None:
    scripts = sorted(path.relative_to(ROOT) for path in (ROOT / "extra_scripts").glob("*.py"))
    done = script("tests/tests_support/every_help.py", *map(str, scripts))
    assert done.returncode == 0, done.stderr
    helps = done.stdout.split("ended with 0\n")[:-1]
    for path, text in zip(scripts, helps, strict=True):
        assert f"    python {path} " in text, path
