"""Plans of the small run of `command.TINY`."""

from __future__ import annotations

from pathlib import Path

from tests_support.in_process import tiny_config
from unlabeled.config.schema import PretrainConfig
from unlabeled.planning.plan import Plan, make_plan
from unlabeled.planning.settings import PlanConfig


def plan_of(config: PretrainConfig) -> Plan:
    """The plan of a run whose data set is there."""
    return make_plan(PlanConfig(**vars(config)))


def tiny_plan(*overrides: str) -> Plan:
    """The plan of the small run."""
    return plan_of(tiny_config(Path("never-made"), *overrides))
