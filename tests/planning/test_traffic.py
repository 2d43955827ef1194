"""What a plan says of the ranks' talk is what two ranks say in a real step, to the byte."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests_support.in_process import tiny_trainer
from tests_support.planning import tiny_plan
from tests_support.ranks import run_ranks
from unlabeled.distributed.traffic import Collective, counted
from unlabeled.engine.trainer import Trainer
from unlabeled.hooks.base import Hook

RANKS = 2
CONTROL_NUMBERS = 4
"""At most so many numbers at once are for the log: the loss, scalars of the method, signals."""
COMMON = (
    *("launch.processes=2", "hooks.knn_probe=null", "checkpoint.every_epochs=null", "max_steps=4"),
    *("scale.projection_dim=19", "scale.hidden_dim=13"),
)
ONE_CLASSIFIER = ("head.rotations=1", "head.super_clusters=1", "head.sub_clusters=4")
"""Of which each of two ranks has a half."""
CASES = [
    ("method=swav",),
    ("method=swav", "sharding=fsdp"),
    ("method=swav", "sharding=fsdp", "activation_checkpointing=stage", "accumulate_steps=2"),
    ("method=swav", "accumulate_steps=2", "method.codes_over=accumulated_batch"),
    ("method=simclr", "sync_batch_norm.enabled=false"),
    ("method=dino", "sharding=fsdp"),
    ("method=deepercluster", "sharding=fsdp", *ONE_CLASSIFIER),
    ("method=moco_v2", "sync_batch_norm.enabled=false"),
]


class Listener(Hook):
    """What is said in the third step."""

    def __init__(self, found: list[Collective]) -> None:
        self.found = found
        self.step: list[Collective] = []

    def step_done(self, trainer: Trainer) -> None:
        if trainer.step == 3:  # DDP arranges its buckets in the second one
            self.step = self.found.copy()
        self.found.clear()


def said(folder: str, cases: list[tuple[str, ...]]) -> list[dict[str, int]]:
    """Bytes by operation in a step of every case, without the few numbers for the log."""
    results = []
    for number, case in enumerate(cases):
        with counted() as found:
            trainer = tiny_trainer(Path(folder, str(number)), *COMMON, *case)
            listener = Listener(found)
            trainer.hooks.append(listener)
            trainer.fit()
        sums: Counter[str] = Counter()
        for collective in listener.step:
            if collective.elements > CONTROL_NUMBERS:
                sums[collective.operation] += collective.bytes
        results.append(dict(sums))
    return results


@pytest.mark.slow
def test_every_byte_of_a_step_is_planned(tmp_path: Path) -> None:
    real = run_ranks(said, RANKS, str(tmp_path), CASES)[0]
    for case, expected in zip(CASES, real, strict=True):
        planned: Counter[str] = Counter()
        for line in tiny_plan(*COMMON, *case).traffic:
            planned[line.operation] += line.bytes
        assert dict(planned) == expected, case
