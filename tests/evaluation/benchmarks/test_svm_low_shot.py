from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from tests_support.probes import Blobs, Pixels, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.average_precision import area
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.benchmarks.svm_low_shot import SVMLowShot, drawn, low_shot_data
from unlabeled.evaluation.linear_svm import fit_svm

BLOBS = Blobs(classes=4, spread=150)
FEW = SVMLowShot.Config(k=[1, 4], samples=3, costs=[0.1, 1.0, 10.0])


def blob_probe() -> Probe:
    return make_probe(BLOBS.draw(60, 1), BLOBS.draw(40, 2))


def test_draws_hold_k_positives_and_k_negatives_for_every_other_class() -> None:
    shown = np.array([1, -1, 0, -1, 1, -1, 1, 0, -1, -1] * 5, dtype=np.int8)
    chosen = drawn(shown, 4, 5, seed=(0, 1))
    assert (np.diff(chosen) > 0).all()  # each image once
    assert [(shown[chosen] == label).sum() for label in (1, 0, -1)] == [4, 0, 16]
    assert np.array_equal(chosen, drawn(shown, 4, 5, seed=(0, 1)))
    assert not np.array_equal(chosen, drawn(shown, 4, 5, seed=(0, 2)))
    everything = drawn(shown, 15, 5, seed=(0, 1))
    assert np.array_equal(everything, np.flatnonzero(shown != 0))


def test_every_image_is_drawn_as_often_as_any_other() -> None:
    shown = np.array([1, -1, 1, -1, -1, 1, -1, 1], dtype=np.int8)
    counts = np.zeros(8)
    for number in range(2000):
        counts[drawn(shown, 1, 3, seed=(number,))] += 1
    positives, negatives = counts[shown == 1] / 2000, counts[shown == -1] / 2000
    assert abs(positives - 1 / 4).max() < 0.05 and abs(negatives - 2 / 4).max() < 0.05


def test_metrics_are_means_over_draws_of_means_over_classes() -> None:
    probe = blob_probe()
    metrics = SVMLowShot(FEW).run(probe)
    data = low_shot_data(probe)
    assert probe.train.labels is not None and probe.test.labels is not None
    for k in (1, 4):
        means = np.zeros((3, 3))  # [draws, costs]
        for draw in range(3):
            for number in range(4):
                shown = np.where(probe.train.labels == number, 1, -1)
                rows = drawn(shown, k, 4, seed=(0, draw, k, number))
                assert len(rows) == 4 * k
                for place, cost in enumerate(FEW.costs):
                    machine = fit_svm(
                        data.train[rows], shown[rows] == 1, cost=cost, recipe=FEW, seed=0
                    )
                    scores = machine.decision_function(data.test)
                    means[draw, place] += 100 * area(scores, probe.test.labels == number) / 4
        best = means[:, means.mean(axis=0).argmax()]
        assert metrics[f"map_k{k}"] == pytest.approx(means[:, 1].mean())
        assert metrics[f"std_k{k}"] == pytest.approx(means[:, 1].std())
        assert metrics[f"map_k{k}_best_cost"] == pytest.approx(best.mean())
        assert metrics[f"std_k{k}_best_cost"] == pytest.approx(best.std())
        assert metrics[f"map_k{k}"] <= metrics[f"map_k{k}_best_cost"]
    assert next(iter(metrics)) == "map_k4"
    assert 25 < metrics["map_k1"] < metrics["map_k4"] < 95


def test_no_test_label_has_a_part_in_the_scores() -> None:
    probe = blob_probe()
    benchmark = SVMLowShot(FEW)
    before = list(benchmark.scores(low_shot_data(probe), number=2, k=4, draw=1))
    probe.test.labels = None
    after = list(benchmark.scores(low_shot_data(replace(probe, cache={})), number=2, k=4, draw=1))
    assert len(before) == 3 and np.array_equal(before, after)


def measured() -> dict[str, float]:
    return SVMLowShot(FEW).run(blob_probe())


@pytest.mark.slow
def test_ranks_agree_with_one_process() -> None:
    alone = measured()
    assert run_ranks(measured, 2) == [alone] * 2


def test_a_k_beyond_the_rarest_class_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    probe = blob_probe()
    train = probe.train
    assert isinstance(train, Pixels) and train.labels is not None
    kept = np.append(np.flatnonzero(train.labels != 3), np.flatnonzero(train.labels == 3)[:2])
    few = replace(probe, train=Pixels(train.images[kept], train.labels[kept], train.classes))
    with caplog.at_level(logging.WARNING):
        metrics = SVMLowShot(FEW).run(few)
    assert "k = [4] left out: class-3 has fewer images" in caplog.text
    assert next(iter(metrics)) == "map_k1" and len(metrics) == 4
    with pytest.raises(DataError, match=r"class class-3 is in 2 training images.* asks for 3"):
        SVMLowShot(replace(FEW, k=[3, 4])).run(few)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": [0]}, r"k: needs one or more numbers of 1 or more, got \[0\]"),
        ({"samples": 0}, "samples: must be positive, got 0"),
        ({"costs": []}, "costs: needs one or more positive"),
        ({"report_cost": 3.0}, "report_cost: must be one of costs"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(SVMLowShot.Config, fields)
