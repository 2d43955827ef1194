"""What papers say that their runs took, beside what a plan of the same runs says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.planning.computation import SECONDS_A_DAY
from unlabeled.planning.plan import Plan, make_plan
from unlabeled.planning.settings import PlanConfig, PlanSettings

TABLE_4 = "Caron et al., NeurIPS 2020, table 4"
THESIS = "Caron's thesis, section 4.5.1"
EIGHT_NODES = ("plan.gpu=v100_16gb", "launch.nodes=8", "plan.images=1281167", "dataset.root=none")
SWAV_8_CROPS = ("experiment=swav/r50_100ep", *EIGHT_NODES)
SWAV_6_CROPS = ("experiment=swav/r50_400ep_2x160", *EIGHT_NODES)
SWAV_2_CROPS = ("experiment=swav/r50_400ep_2x224", *EIGHT_NODES)
SIMCLR = ("experiment=simclr/r50_400ep_2x224", "precision=fp16", *EIGHT_NODES)
REGNET = ("experiment=swav/rg256_ig1b", "launch.nodes=64", "dataset.root=none")


@cache
def plan_of(run: Sequence[str]) -> Plan:
    """The plan of a run, by its command line."""
    composed = compose_config("plan", run)
    return make_plan(build_config(PlanConfig, composed.data, composed.problems))


def memory_gb(plan: Plan) -> float:
    """Of a GPU, 10^9 bytes, what it holds beside tensors included."""
    return plan.gpu_bytes / 1e9


def hours(plan: Plan) -> float:
    """Of 100 epochs."""
    return 100 * plan.lengths.steps_per_epoch * plan.step_seconds / 3600


def days_at_the_published_step(plan: Plan) -> float:
    """The run's steps, of 6.125 s each."""
    return plan.lengths.total_steps * 6.125 / SECONDS_A_DAY


@dataclass(frozen=True)
class Published:
    """A figure of a source, the run that it is of, and how a plan of that run gives it.

    why: where the plan cannot agree, the reason.
    """

    what: str
    value: float
    unit: str
    source: str
    run: tuple[str, ...]
    planned: Callable[[Plan], float]
    why: str = ""


OVERHEAD = (
    "tensors, and 3 GB of what a GPU holds beside them in every run: published less tensors is "
    "2.5 to 3.6 GB, and the source does not say what it counted"
)
EFFICIENCY = (
    "one plan.efficiency for all, in the middle of what the runs reached; what loads images and "
    "what GPUs say to each other is not planned by itself"
)
PUBLISHED = (
    Published("memory, SwAV 2x224+6x96", 12.8, "GB", TABLE_4, SWAV_8_CROPS, memory_gb, OVERHEAD),
    Published("memory, SwAV 2x160+4x96", 8.5, "GB", TABLE_4, SWAV_6_CROPS, memory_gb, OVERHEAD),
    Published("memory, SwAV 2x224", 8.6, "GB", TABLE_4, SWAV_2_CROPS, memory_gb, OVERHEAD),
    Published("memory, SimCLR 2x224", 8.6, "GB", TABLE_4, SIMCLR, memory_gb, OVERHEAD),
    Published("100 epochs, SwAV 2x224+6x96", 6.25, "h", TABLE_4, SWAV_8_CROPS, hours, EFFICIENCY),
    Published("100 epochs, SwAV 2x160+4x96", 4.83, "h", TABLE_4, SWAV_6_CROPS, hours, EFFICIENCY),
    Published("100 epochs, SwAV 2x224", 4.15, "h", TABLE_4, SWAV_2_CROPS, hours, EFFICIENCY),
    Published("100 epochs, SimCLR 2x224", 4.0, "h", TABLE_4, SIMCLR, hours, EFFICIENCY),
    Published(
        *("a step, RegNetY-256GF", 6.125, "s", THESIS, REGNET),
        lambda plan: plan.step_seconds,
        EFFICIENCY,
    ),
    Published("steps of a pass", 114_890, "", THESIS, REGNET, lambda p: p.lengths.total_steps),
    Published("a pass at 6.125 s a step", 8, "days", THESIS, REGNET, days_at_the_published_step),
    Published(
        *("parameters of RegNetY-256GF", 1.3, "10^9", "Caron's thesis, table 4.7", REGNET),
        lambda plan: plan.parameters["backbone"] / 1e9,
    ),
)


def reached() -> list[float]:
    """The shares of what the GPU allows that the runs of published times came to."""
    timed = [figure for figure in PUBLISHED if figure.why is EFFICIENCY]
    return [PlanSettings().efficiency * f.planned(plan_of(f.run)) / f.value for f in timed]


def comparisons() -> Iterator[str]:
    """A line for every figure: what, published, planned, their ratio, the source; then reasons."""
    yield f"{'':30}{'published':>12}{'planned':>12}{'ratio':>8}      source"
    reasons: list[str] = []
    for figure in PUBLISHED:
        planned = figure.planned(plan_of(figure.run))
        if figure.why and figure.why not in reasons:
            reasons.append(figure.why)
        note = f" ({reasons.index(figure.why) + 1})" if figure.why else ""
        numbers = f"{figure.value:>12,.6g}{planned:>12,.6g}{planned / figure.value:>8.2f}"
        yield f"{figure.what:30}{numbers} {figure.unit:5}{figure.source}{note}"
    low, *_, high = sorted(reached())
    yield (
        f"Times are planned at {PlanSettings().efficiency:.1%} of what the GPU allows; the runs "
        f"reached {low:.1%} to {high:.1%}."
    )
    yield from (f"({number}) {reason}." for number, reason in enumerate(reasons, start=1))
