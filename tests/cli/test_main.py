"""The command: which sub-command runs, what it returns, and what a person sees when it fails."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

import unlabeled as package
from tests_support.commands import ROOT, python, unlabeled
from unlabeled.cli.main import COMMANDS, Command, main
from unlabeled.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergenceError,
    EnvironmentProblem,
    UserError,
)

COMMAND_MODULE = """
import sys
from unlabeled import errors

def main(argv):
    if argv[0] == "interrupt":
        raise KeyboardInterrupt
    if argv[0] == "bug":
        raise ZeroDivisionError("a bug")
    if argv[0] == "ok":
        print("given", argv[1:])
        return 7
    if argv[0] == "many":
        raise errors.ConfigError(["one: wrong", "two: wrong too"])
    raise getattr(errors, argv[0])("because")
"""


@pytest.fixture(autouse=True)
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sub-command `trial` that does what its argument says."""
    (tmp_path / "trial_command.py").write_text(COMMAND_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trial_command", raising=False)
    monkeypatch.setitem(COMMANDS, "trial", Command("trial_command", "", "a trial"))


def test_arguments_and_status_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trial", "ok", "loss=swav", "--flag"]) == 7
    assert capsys.readouterr().out == "given ['loss=swav', '--flag']\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError, 1),
        (ConfigError, 2),
        (DataError, 3),
        (CheckpointError, 4),
        (EnvironmentProblem, 5),
        (DivergenceError, 6),
    ],
)
def test_an_expected_failure_is_one_line_and_its_status(
    error: type[UserError], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trial", error.__name__]) == status
    captured = capsys.readouterr()
    assert captured.err == "unlabeled: because\n"
    assert captured.out == ""


def test_what_an_error_names_cannot_command_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["\x1b[2J\udcff"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unlabeled: unknown command '") and line.isprintable()
    assert main(["list", "\u202elos\x9b1m"]) == 2
    assert capsys.readouterr().err.strip().isprintable()


def test_every_problem_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trial", "many"]) == 2
    assert capsys.readouterr().err == "unlabeled: one: wrong\nunlabeled: two: wrong too\n"


def test_an_interrupt_is_130_as_in_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trial", "interrupt"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        main(["trial", "bug"])


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert all(f"unlabeled {name}" in text for name in COMMANDS)
    assert all(len(line) <= 100 for line in text.splitlines())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"unlabeled {package.__version__}\n"


def test_an_unknown_command_is_answered_with_the_closest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["pretrian", "method=swav"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "unknown command 'pretrian'. Did you mean 'pretrain'?" in line
    assert all(name in line for name in COMMANDS)


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["--version"], ["list"], ["list", "loss"], ["show", "loss", "swav"], ["jobs"]],
)
def test_what_only_reads_needs_no_torch_and_less_than_a_second(argv: list[str]) -> None:
    """The second is of processor time, so that a busy machine does not matter."""
    code = (
        "import sys\n"
        "from unlabeled.cli.main import main\n"
        f"status = main({argv!r})\n"
        "heavy = {m.split('.')[0] for m in sys.modules} & {'torch', 'torchvision', 'numpy'}\n"
        "sys.exit(status or ','.join(heavy) or 0)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = python("-c", code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import unlabeled; print(set(sys.modules) - before)"
    )
    assert python("-c", code).stdout.strip() == "{'unlabeled'}"


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m unlabeled list; echo $? >&2"
    result = subprocess.run(
        ["bash", "-c", f"({command}) | true"],
        cwd=ROOT / "platform",
        capture_output=True,
        text=True,
    )
    assert result.stderr in ("141\n", "0\n")  # 0: everything fitted the pipe before `true` ended


def test_the_module_is_the_command() -> None:
    result = unlabeled("show", "loss")
    assert result.returncode == 2
    assert "unlabeled show: error" in result.stderr
    assert unlabeled("--version").stdout == f"unlabeled {package.__version__}\n"
