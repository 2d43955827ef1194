"""Everything that the command line can name is listed once, components and plain YAML alike."""

from __future__ import annotations

import pytest

from unlabeled.cli.choices import choice, choices, kinds
from unlabeled.config.location import config_dir
from unlabeled.errors import ConfigError
from unlabeled.registry import KINDS, group, names


def test_kinds_are_those_of_the_registry_then_the_other_folders() -> None:
    assert kinds()[: len(KINDS)] == list(KINDS)
    folders = {path.name for path in config_dir().iterdir() if path.is_dir()}
    assert folders == {group(kind) if kind in KINDS else kind for kind in kinds()} & folders
    assert {"experiment", "scale"} <= set(kinds())
    assert "launch" not in kinds(), "the folder of the kind `launcher` is no kind of its own"


@pytest.mark.parametrize("kind", kinds())
def test_every_component_and_every_yaml_is_a_choice(kind: str) -> None:
    folder = config_dir() / (group(kind) if kind in KINDS else kind)
    files = {p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml")}
    found = choices(kind)
    components = set(names(kind)) if kind in KINDS else set()
    assert [each.name for each in found] == sorted(files | components)
    assert {each.name for each in found if each.yaml} == files
    assert {each.name for each in found if each.entry} == components


def test_every_choice_says_what_it_is() -> None:
    silent = [
        f"{kind} {each.name}" for kind in kinds() for each in choices(kind) if not each.summary
    ]
    assert not silent, silent


def test_summary_of_a_recipe_is_its_first_comment_and_not_hydras() -> None:
    for each in choices("experiment"):
        assert each.yaml is not None
        assert each.summary in each.yaml.read_text(encoding="utf-8")
        assert "@package" not in each.summary


def test_unknown_names_are_answered_with_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"unknown kind 'losses'\. Did you mean 'loss'"):
        choices("losses")
    with pytest.raises(ConfigError, match=r"unknown loss 'swavv'\. Did you mean 'swav'"):
        choice("loss", "swavv")
    with pytest.raises(ConfigError, match=r"unknown scale 'smal'\. Did you mean 'small'"):
        choice("scale", "smal")
    assert choice("loss", "swav").name == "swav"
