"""What several trainings come to."""

from __future__ import annotations

import statistics

import pytest

from unlabeled.transfer.detection_runs import ORDER, averaged


def test_runs_are_averaged_with_their_deviation() -> None:
    runs = [{"AP": 50.0, "AP50": 80.0}, {"AP": 53.0, "AP50": 82.0}, {"AP": 56.0, "AP50": 81.0}]
    metrics = averaged(runs, ORDER["voc"])
    assert list(metrics) == ["AP50", "AP", "AP50_std", "AP_std"]
    assert metrics["AP"] == 53 and metrics["AP50"] == 81
    assert metrics["AP_std"] == pytest.approx(statistics.stdev([50, 53, 56]))
    assert averaged(runs[:1], ORDER["coco"]) == {"AP": 50, "AP50": 80}
