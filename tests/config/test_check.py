"""Every fault of a config is found, named by its full key and told how to mend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from unlabeled.config.check import build_config, to_data
from unlabeled.errors import ConfigError
from unlabeled.registry import Component


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float
    sides: tuple[int, int] = (1, 2)

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.rate <= 0:
            yield "rate", f"must be positive, got {self.rate}"


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    mode: Literal["fast", "slow"]
    inner: Inner
    count: int | None = None
    flag: bool = False
    items: list[Inner] = field(default_factory=list)
    loss: Annotated[Component, "loss"] | None = None
    table: dict[str, int] = field(default_factory=dict)


GOOD = {"name": "x", "mode": "fast", "inner": {"rate": 1}}


def faults(**changes: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_config(Outer, {**GOOD, **changes})
    return caught.value.problems


def test_good_data_becomes_typed_and_back() -> None:
    data = {
        **GOOD,
        "items": [{"rate": 0.5, "sides": [3, 4]}],
        "loss": {"name": "swav", "temperature": 0.2},
        "table": {"a": 1},
    }
    config = build_config(Outer, data)
    assert config.inner == Inner(rate=1.0)
    assert isinstance(config.inner.rate, float)
    assert config.items[0].sides == (3, 4)
    assert config.loss is not None and config.loss.fields.temperature == 0.2
    assert build_config(Outer, to_data(config)) == config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"nmae": 1}, "nmae: unknown key. Did you mean 'name'?"),
        (
            {"inner": {"rate": 1, "sidez": [1, 2]}},
            "inner.sidez: unknown key. Did you mean 'sides'?",
        ),
        ({"inner": {"rate": "1"}}, "inner.rate: expected float, got '1' (str)"),
        ({"inner": {"rate": True}}, "inner.rate: expected float, got True (bool)"),
        ({"inner": {"rate": 0}}, "inner.rate: must be positive, got 0.0"),
        ({"inner": {}}, "inner.rate: required (float)"),
        ({"inner": {"rate": "???"}}, "inner.rate: required: give it as inner.rate=... (float)"),
        ({"inner": 3}, "inner: expected a group of keys, got 3"),
        ({"mode": "fsat"}, "mode: got 'fsat', accepted: fast, slow Did you mean 'fast'?"),
        ({"mode": None}, "mode: got None, accepted: fast, slow"),
        ({"count": 1.5}, "count: expected int, got 1.5 (float)"),
        ({"flag": 1}, "flag: expected bool, got 1 (int)"),
        ({"name": None}, "name: expected str, got None (NoneType)"),
        ({"items": [{"rate": 1}, {"rate": -1}]}, "items[1].rate: must be positive, got -1.0"),
        ({"items": {"rate": 1}}, "items: expected list[Inner], got {'rate': 1}"),
        ({"inner": {"rate": 1, "sides": [1]}}, "inner.sides: expected 2 values, got [1]"),
        ({"table": {"a": "b"}}, "table.a: expected int, got 'b' (str)"),
        ({"loss": "swav"}, "loss: expected a loss: its `name` and its fields, got 'swav'"),
        ({"loss": {"name": "swav", "temprature": 1}}, "loss.temprature: unknown key. Did you mean"),
        ({"loss": {"name": "swva"}}, "loss.name: unknown loss 'swva'. Did you mean 'swav'?"),
    ],
)
def test_one_fault_gives_one_line_with_its_full_key(
    changes: dict[str, object], expected: str
) -> None:
    found = faults(**changes)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_all_faults_are_reported_at_once() -> None:
    found = faults(
        nmae=1, mode="x", count="y", inner={"rate": 0, "side": 1}, loss={"name": "nothing"}
    )
    keys = [line.split(":")[0] for line in found]
    assert sorted(keys) == ["count", "inner.rate", "inner.side", "loss.name", "mode", "nmae"]


def test_faults_found_earlier_come_first() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(Outer, {**GOOD, "mode": "x"}, ["method: unknown choice 'swva'"])
    assert caught.value.problems[0].startswith("method")
    assert len(caught.value.problems) == 2
