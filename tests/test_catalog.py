"""The catalog reads from source exactly what Python would say after an import."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from unlabeled.catalog import described, registrations

SOURCE = '''
from __future__ import annotations
from dataclasses import dataclass, field
from unlabeled import registry
from unlabeled.registry import register

class Config:
    not_mine: int = 1

@register("loss", "example_of_the_catalog")
class Example:
    """Sums things, see Eq. 3 of the paper. Then more.

    Details [N, D].
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What it takes."""

        size: int
        """Rows,
        in pixels."""

        ratio: float | None = 0.5
        silent: bool = True
        sizes: list[int] = field(default_factory=lambda: [3, 4])
        """Counted."""
        table: dict[str, int] = field(default_factory=dict)
        other: str = field(default="a")

    def __init__(self, config: Config) -> None:
        self.local: int = 3

class NotRegistered:
    """Not listed."""
'''


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "example_of_the_catalog.py"
    path.write_text(SOURCE)
    return path


def test_reads_name_summary_line_and_fields(source: Path) -> None:
    (entry,) = registrations(str(source))
    assert (entry.kind, entry.name) == ("loss", "example_of_the_catalog")
    assert entry.summary == "Sums things, see Eq. 3 of the paper."
    assert entry.doc.endswith("Details [N, D].")
    assert SOURCE.splitlines()[entry.line - 1] == "class Example:"
    assert [(f.name, f.type, f.default, f.doc) for f in entry.fields] == [
        ("size", "int", None, "Rows, in pixels."),
        ("ratio", "float | None", "0.5", ""),
        ("silent", "bool", "True", ""),
        ("sizes", "list[int]", "[3, 4]", "Counted."),
        ("table", "dict[str, int]", "dict()", ""),
        ("other", "str", "'a'", ""),
    ]


def test_fields_are_those_of_the_dataclass(source: Path, forget_registrations: None) -> None:
    (entry,) = registrations(str(source))
    config = load(source).Example.Config
    assert [f.name for f in entry.fields] == [f.name for f in dataclasses.fields(config)]
    assert [f.type for f in entry.fields] == [f.type for f in dataclasses.fields(config)]
    given = config(size=1)
    for each in entry.fields[1:]:
        assert each.default is not None
        assert eval(each.default) == getattr(given, each.name)


@pytest.mark.parametrize("decorator", ["registry.register", "register"])
def test_the_decorator_may_be_spelled_both_ways(tmp_path: Path, decorator: str) -> None:
    path = tmp_path / "spelled.py"
    path.write_text(f'@{decorator}("hook", "spelled")\nclass Spelled: ...\n')
    assert [(e.kind, e.name, e.doc) for e in registrations(str(path))] == [("hook", "spelled", "")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "register = 1\n",
        '@register("loss")\nclass A: ...\n',
        '@register("loss", NAME)\nclass A: ...\n',
        '@other("loss", "a")\nclass A: ...\nregister("loss", "b")\n',
    ],
)
def test_what_is_not_a_registration_is_not_listed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "nothing.py"
    path.write_text(text)
    assert registrations(str(path)) == ()


def test_a_missing_file_registers_nothing(tmp_path: Path) -> None:
    assert registrations(str(tmp_path / "absent.py")) == ()


def test_an_imported_class_is_described_by_its_source(
    source: Path, forget_registrations: None
) -> None:
    module = load(source)
    sys.modules[source.stem] = module  # inspect finds the file through the module
    try:
        entry = described("loss", source.stem, module.Example)
    finally:
        del sys.modules[source.stem]
    assert entry == registrations(str(source))[0]


def test_a_class_without_a_decorator_is_described_by_what_it_is() -> None:
    class Bare:
        """Made here. Twice."""

        @dataclasses.dataclass
        class Config:
            size: int
            sizes: list[int] = dataclasses.field(default_factory=lambda: [1])
            scale: float = 2.0

    entry = described("loss", "bare", Bare)
    assert (entry.name, entry.summary) == ("bare", "Made here.")
    assert [(f.name, f.type, f.default) for f in entry.fields] == [
        ("size", "int", None),
        ("sizes", "list[int]", "[1]"),
        ("scale", "float", "2.0"),
    ]
