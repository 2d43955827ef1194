"""Names lead to classes; what is unknown, doubled or broken is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_support.commands import python
from unlabeled import registry
from unlabeled.errors import ConfigError
from unlabeled.registry import KINDS, Component, entries, get, load_plugins, names, register

pytestmark = pytest.mark.usefixtures("forget_registrations")

PLUGIN = '''
from dataclasses import dataclass
from unlabeled.registry import register

@register("loss", "{name}")
class Mine:
    """Mine. Found from outside."""

    @dataclass(frozen=True)
    class Config:
        factor: float = 2.0
        """By how much."""

    def __init__(self, config, *, offset):
        self.result = config.factor + offset
'''


def write_plugin(folder: Path, module: str, text: str) -> None:
    """A package `module` (top.sub) below a folder that is on the path."""
    package = folder / module.split(".")[0]
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / f"{module.split('.')[1]}.py").write_text(text)


def test_get_imports_the_module_of_that_name() -> None:
    cls = get("loss", "swav")
    assert cls.__module__ == "unlabeled.losses.swav"
    assert get("loss", "swav") is cls


def test_names_are_the_sorted_names_of_the_entries() -> None:
    for kind in KINDS:
        found = names(kind)
        assert found == sorted(set(found))
        assert found == [entry.name for entry in entries(kind)]
    assert "swav" in names("loss")
    assert "base" not in names("method")


def test_an_unknown_name_is_answered_with_the_closest_and_all_others() -> None:
    with pytest.raises(ConfigError) as caught:
        get("loss", "swaw")
    message = str(caught.value)
    assert "unknown loss 'swaw'. Did you mean 'swav'?" in message
    assert all(name in message for name in names("loss"))
    assert "unlabeled.losses" in message


@pytest.mark.parametrize("name", ["", "a.b", "../swav", "os", "precision", "nothing like it"])
def test_a_name_that_is_no_component_is_unknown(name: str) -> None:
    """Neither another module of the room nor a path gets in."""
    with pytest.raises(ConfigError, match="unknown loss"):
        get("loss", name)


def test_a_second_class_of_the_same_name_is_an_error() -> None:
    first = get("loss", "swav")
    with pytest.raises(ConfigError, match=r"twice: by unlabeled\.losses\.swav and by"):
        register("loss", "swav")(type("Other", (), {}))
    assert get("loss", "swav") is first


def test_the_same_class_may_come_again() -> None:
    """A module that runs twice (as a script and as an import) is not a duplicate."""
    cls = get("loss", "swav")
    assert register("loss", "swav")(cls) is cls


def test_the_same_name_in_two_kinds_is_two_components() -> None:
    assert get("loss", "swav") is not get("method", "swav")


def test_component_builds_with_fields_and_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(tmp_path, "lab_for_build.losses", PLUGIN.format(name="mine_to_build"))
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins(["lab_for_build.losses"])
    cls = get("loss", "mine_to_build")
    built = Component("loss", "mine_to_build", cls.Config(factor=3.0)).build(offset=0.5)
    assert isinstance(built, cls)
    assert built.result == 3.5


def test_plugins_are_listed_with_what_their_source_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(tmp_path, "lab_for_list.losses", PLUGIN.format(name="mine_to_list"))
    monkeypatch.syspath_prepend(tmp_path)
    assert "mine_to_list" not in names("loss")
    (module,) = load_plugins(["lab_for_list.losses"])[-1:]
    assert module.__name__ == "lab_for_list.losses"
    entry = next(entry for entry in entries("loss") if entry.name == "mine_to_list")
    assert entry.summary == "Mine."
    assert entry.path == str(tmp_path / "lab_for_list" / "losses.py")
    assert [(f.name, f.default, f.doc) for f in entry.fields] == [("factor", "2.0", "By how much.")]


def test_plugins_of_installed_packages_are_found_by_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(tmp_path, "lab_installed.losses", PLUGIN.format(name="mine_installed"))
    info = tmp_path / "lab_installed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-installed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unlabeled.plugins]\nlab = lab_installed.losses\n")
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins([])
    assert "mine_installed" in names("loss")


def test_every_plugin_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        load_plugins(["no_such_lab.losses", "no_other_lab"])
    one, other = caught.value.problems
    assert "no_such_lab.losses" in one
    assert "no_other_lab" in other


def test_a_component_whose_module_does_not_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not skipped, and not called unknown."""
    write_plugin(tmp_path, "room_with_a_fault.faulty", "import a_library_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(KINDS, "loss", registry.Kind("room_with_a_fault", "any"))
    with pytest.raises(ConfigError, match=r"loss 'faulty'.*a_library_that_nobody_has"):
        get("loss", "faulty")


def test_listing_imports_neither_torch_nor_a_component() -> None:
    code = (
        "import sys\n"
        "import unlabeled.registry as r\n"
        "assert all(isinstance(r.names(kind), list) for kind in r.KINDS)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy')\n"
        "       or m == 'unlabeled.losses.swav'])\n"
    )
    result = python("-c", code)
    assert result.stdout.strip() == "[]", result.stderr
