"""What is called in another process arrives there whole, and what it arrives in imports nothing."""

from __future__ import annotations

import pickle
from functools import partial
from operator import add
from pathlib import Path

from tests_support.commands import python
from unlabeled.launch.task import Pickled, call


def test_what_reads_a_task_imports_nothing_before_it() -> None:
    code = "import sys, unlabeled.launch.task; print({'torch', 'numpy'} & set(sys.modules))"
    result = python("-c", code)
    assert (result.stdout, result.stderr) == ("set()\n", "")


def test_a_pickle_of_a_pickle_is_read_as_what_is_inside() -> None:
    inside = partial(add, 2)
    read = pickle.loads(pickle.dumps(Pickled(pickle.dumps(inside))))
    assert read(3) == inside(3) == 5


def test_what_a_script_defines_travels_with_it(tmp_path: Path) -> None:
    script = (
        "import pickle, cloudpickle\nfrom unlabeled.launch.task import Pickled\n"
        "def twice(number): return 2 * number\n"
        "open('task', 'wb').write(pickle.dumps(Pickled(cloudpickle.dumps(twice))))"
    )
    assert python("-c", script, cwd=tmp_path).returncode == 0
    reader = "import pickle; print(pickle.load(open('task', 'rb'))(21))"
    assert python("-c", reader, cwd=tmp_path).stdout == "42\n"


def test_what_was_pickled_is_called_with_the_arguments() -> None:
    found: list[int] = []
    call(pickle.dumps(list.append), found, 7)
    assert found == [7]
