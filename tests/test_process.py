"""A process that imports and ends quickly does everything else as any other process."""

from __future__ import annotations

import gc
import subprocess

import pytest

from tests_support.commands import python
from unlabeled import process

BEGIN = """
import atexit, logging, sys, threading, time
from unlabeled import process

class Left:
    def __del__(self):
        print("taken apart")

def late():
    time.sleep(0.2)
    print("the thread")

left = Left()
process.will_end_quickly()
atexit.register(print, "a handler")
threading.Thread(target=late).start()
print("the work", end="\\n")
"""


@pytest.fixture(autouse=True)
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed waits for the end."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def ended(*lines: str) -> subprocess.CompletedProcess[str]:
    return python("-c", BEGIN + "\n".join(lines))


def test_threads_and_handlers_come_before_the_end_and_nothing_is_taken_apart() -> None:
    result = ended("process.ends_with(3)", "sys.exit(4)")
    assert (result.returncode, result.stderr) == (3, "")
    assert result.stdout == "the work\nthe thread\na handler\n"


@pytest.mark.parametrize(
    ("lines", "status", "error"),
    [
        (["sys.exit(4)"], 4, ""),
        (["process.ends_with(0)", "raise KeyError('bug')"], 1, "KeyError: 'bug'\n"),
    ],
)
def test_a_process_that_ends_otherwise_ends_as_ever(
    lines: list[str], status: int, error: str
) -> None:
    result = ended(*lines)
    assert result.returncode == status
    assert result.stderr.endswith(error)
    assert result.stdout == "the work\nthe thread\na handler\ntaken apart\n"


def test_a_reader_that_leaves_costs_nothing_that_was_said_before() -> None:
    told = "import os; os.close(1); process.ends_with(5)"
    result = ended("sys.stdout.flush()", told, "print('for nobody')")
    assert result.stdout == "the work\n"
    assert result.returncode != 0


def test_what_was_imported_is_looked_at_no_more_in_a_process_of_ours_alone() -> None:
    imports = "with process.importing(): import wave"
    count = "import gc; print(gc.get_freeze_count() > 1000, gc.isenabled())"
    said = ended(imports, count, "process.ends_with(0)").stdout
    assert said.splitlines()[1] == "True True"
    anyone = f"from unlabeled import process\n{imports}\n{count}"
    assert python("-c", anyone).stdout == "False True\n"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_after_imports(enabled: bool) -> None:
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ImportError), process.importing():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
