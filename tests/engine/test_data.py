"""The training data is the same however it is loaded, and what the trainer keeps stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_support.in_process import tiny_trainer
from unlabeled.data.types import Batch

THREADS = ("loader.kind=threads", "loader.workers=3")
PROCESSES = ("loader.kind=processes", "loader.workers=2")


def content(batches: list[Batch]) -> list[object]:
    return [
        ([view.tolist() for view in batch.views], batch.indices.tolist(), batch.broken)
        for batch in batches
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        THREADS,
        ("loader.cache_gb=1",),
        (*THREADS, "loader.cache_gb=0.0001", "loader.prefetch_batches=1"),
        pytest.param(PROCESSES, marks=pytest.mark.slow),
        pytest.param((*PROCESSES, "loader.cache_gb=1"), marks=pytest.mark.slow),
    ],
)
def test_how_batches_are_loaded_changes_none(settings: tuple[str, ...], tmp_path: Path) -> None:
    choices = ("accumulate_steps=2", "hooks.knn_probe=null")
    plain = tiny_trainer(tmp_path / "plain", *choices)
    other = tiny_trainer(tmp_path / "other", *choices, *settings)
    # Kept until the end, as a step with several micro-batches keeps them; two epochs.
    expected, found = (list(each.data.training(1, 7)) for each in (plain, other))
    assert content(found) == content(expected) and len(found) == 12
    assert content(list(other.data.initial_pass())) == content(list(plain.data.initial_pass()))
