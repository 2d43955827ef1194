"""`unlabeled show`: what the page says is what the class and the parser of the command say."""

from __future__ import annotations

import ast
import dataclasses
import re

import pytest
import yaml

from unlabeled.cli.choices import choice, choices, kinds
from unlabeled.cli.main import main
from unlabeled.config.compose import compose_config
from unlabeled.registry import KINDS, entries, get


@pytest.fixture
def page(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str, str]:
    """(kind, name, what `unlabeled show` prints)."""
    kind, name = request.param
    assert main(["show", kind, name]) == 0
    return kind, name, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds())
def test_every_page_starts_with_the_name_and_ends_with_the_use(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in choices(kind):
        assert main(["show", kind, each.name]) == 0
        text = capsys.readouterr().out
        assert text.splitlines()[0] == f"{kind} {each.name}"
        assert "\nuse\n  unlabeled " in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        (kind, each.name)
        for kind in kinds()
        if kind != "study"
        for each in (choices(kind)[0], choices(kind)[-1])
    ],
    indirect=True,
)
def test_the_command_lines_of_a_page_compose(page: tuple[str, str, str]) -> None:
    """The command takes each of them, and every group that they name has that component."""
    kind, name, text = page
    for line in text.split("\nuse\n")[1].splitlines():
        words = line.split("#")[0].split()
        overrides = [word for word in words[2:] if not word.endswith("=...")]
        composed = compose_config(words[1], overrides)
        assert words[0] == "unlabeled"
        assert not composed.problems, (line, composed.problems)
        chosen = [word for word in overrides if word.lstrip("+").endswith(f"={name}")]
        dropped = [word for word in overrides if word.startswith("~")]
        values = [word for word in overrides if word not in chosen + dropped]
        for word in chosen if kind in KINDS else []:
            place = word.lstrip("+").split("=")[0].split("@")[-1]
            assert at(composed.data, place)["name"] == component(kind, name)
        for word in values:
            place = word.split("=")[0]
            assert at(composed.data, place) == written_default(kind, name, place.split(".")[-1])
        for word in dropped:
            assert at(composed.data, word.split("@")[-1]) is MISSING


@pytest.mark.parametrize("page", [("study", "swav_prototypes")], indirect=True)
def test_a_study_is_started_by_its_name(page: tuple[str, str, str]) -> None:
    assert page[2].endswith("\nuse\n  unlabeled study swav_prototypes\n")


def component(kind: str, name: str) -> str:
    """The component that a name stands for: its own, or the one that its YAML gives values."""
    found = choice(kind, name)
    if found.entry is not None:
        return found.entry.name
    assert found.yaml is not None
    return str(yaml.safe_load(found.yaml.read_text(encoding="utf-8"))["name"])


def written_default(kind: str, name: str, field: str) -> object:
    """The default of a field, as its source says."""
    entry = next(entry for entry in entries(kind) if entry.name == name)
    return ast.literal_eval(next(f.default or "" for f in entry.fields if f.name == field))


MISSING = object()


def at(data: object, path: str) -> object:
    """The value at a dotted path."""
    for key in path.split("."):
        if not isinstance(data, dict) or key not in data:
            return MISSING
        data = data[key]
    return data


@pytest.mark.parametrize("page", [("loss", "swav"), ("method", "swav")], indirect=True)
def test_a_page_has_every_field_and_the_place_of_the_source(page: tuple[str, str, str]) -> None:
    kind, name, text = page
    cls = get(kind, name)
    for field in dataclasses.fields(cls.Config):
        assert re.search(rf"^  {field.name}: .*(= |required)", text, re.MULTILINE)
    place = re.search(r"^source    (.+):(\d+)$", text, re.MULTILINE)
    assert place is not None
    assert place[1].endswith(f"{name}.py")
    assert f"configs/{kind}/{name}.yaml" in text
    assert KINDS[kind].contract in text
    assert cls.__doc__.splitlines()[0] in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["los", "swav"], "unknown kind 'los'. Did you mean 'loss'?"),
        (["loss", "swa"], "unknown loss 'swa'. Did you mean 'swav'?"),
    ],
)
def test_unknown_names_are_status_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"unlabeled: {message} Known: ")
