from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tests_support.probes import Blobs, Pixels, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.benchmarks.linear_features import (
    LinearFeatures,
    accuracy,
    held_out_rows,
)


def config(**fields: Any) -> LinearFeatures.Config:
    small: dict[str, Any] = {"c_powers": (-4.0, 2.0), "c_count": 7, "tolerance": 1e-6}
    return LinearFeatures.Config(**{**small, **fields})


def probe(spread: float = 60, classes: int = 5, seed: int = 0) -> Probe:
    blobs = Blobs(classes, spread)
    return make_probe(blobs.draw(160, 1), blobs.draw(80, 2), seed=seed)


def exact(rows: Tensor, labels: Tensor, c: float) -> LogisticRegression:
    model = LogisticRegression(C=c, tol=1e-9, max_iter=1000, solver="newton-cg")
    return model.fit(rows.double().numpy(), labels.numpy())


@pytest.mark.slow
def test_the_choice_and_the_refit_are_those_of_a_loop_over_scikit_learn() -> None:
    measured = probe()
    train, test = measured.features("train"), measured.features("test")
    assert train.labels is not None and test.labels is not None
    held_out = held_out_rows(train.labels, share=0.25, seed=0)
    rest = [
        exact(train.features[~held_out], train.labels[~held_out], 10.0**power).score(
            train.features[held_out].double().numpy(), train.labels[held_out].numpy()
        )
        for power in range(-4, 3)
    ]
    assert len(set(rest)) > 2  # the sweep makes a difference
    chosen = int(np.argmax(rest)) - 4
    refit = exact(train.features, train.labels, 10.0**chosen)
    metrics = LinearFeatures(config(held_out=0.25)).run(measured)
    assert metrics["log10_c"] == pytest.approx(chosen)
    assert metrics["top1_held_out"] == pytest.approx(100 * max(rest))
    right = refit.score(test.features.double().numpy(), test.labels.numpy())
    assert metrics["top1"] == pytest.approx(100 * right)
    choice = LinearFeatures(config(held_out=0.25)).train(measured)
    np.testing.assert_allclose(choice.solution.theta[:, :-1].numpy(), refit.coef_, atol=1e-3)
    assert list(metrics) == ["top1", "top5", "log10_c", "top1_held_out"]
    assert metrics["top1"] < metrics["top5"] <= 100


@pytest.mark.slow
def test_the_test_split_reaches_nothing_that_is_chosen() -> None:
    benchmark, measured = LinearFeatures(config()), probe()
    test = Blobs(5, 60).draw(80, 99)
    assert test.labels is not None
    test.labels = np.random.default_rng(0).permutation(test.labels)
    poisoned = replace(probe(), test=test)
    clean, same = benchmark.train(measured), benchmark.train(poisoned)
    assert clean.solution.theta.equal(same.solution.theta)
    assert (clean.log10_c, clean.held_out_top1) == (same.log10_c, same.held_out_top1)
    assert benchmark.run(measured)["top1"] > 1.5 * benchmark.run(poisoned)["top1"]
    assert measured.train.labels is not None
    measured.train.labels = np.roll(measured.train.labels, 1)  # training labels do
    measured.cache.clear()
    assert not benchmark.train(measured).solution.theta.equal(clean.solution.theta)


def test_every_class_gives_its_share_and_keeps_one() -> None:
    labels = torch.tensor([0] * 40 + [1] * 10 + [2] * 1 + [3] * 2)[
        torch.randperm(53, generator=torch.Generator().manual_seed(0))
    ]
    held_out = held_out_rows(labels, share=0.8, seed=0)
    counts = [int((labels[held_out] == label).sum()) for label in range(4)]
    assert counts == [32, 8, 0, 1]
    assert held_out.equal(held_out_rows(labels, share=0.8, seed=0))
    assert not held_out.equal(held_out_rows(labels, share=0.8, seed=1))
    with pytest.raises(DataError, match=r"the largest class has 3; .* larger benchmark\.held_out"):
        held_out_rows(torch.tensor([0, 0, 0, 1]), share=0.1, seed=0)


def test_of_equally_good_values_the_smallest_c_is_chosen_and_an_end_of_the_sweep_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    choice = LinearFeatures(config(c_powers=(0.0, 2.0), c_count=3)).train(probe(spread=5))
    assert (choice.log10_c, choice.held_out_top1) == (0.0, 100.0)
    assert "C = 1e0, an end of the sweep, was best" in caplog.text


def test_too_few_iterations_are_told(caplog: pytest.LogCaptureFixture) -> None:
    LinearFeatures(config(c_powers=(1.0, 1.0), c_count=1, max_iterations=2)).train(probe())
    assert "give more benchmark.max_iterations" in caplog.text
    caplog.clear()
    LinearFeatures(config(c_powers=(1.0, 1.0), c_count=1)).train(probe())
    assert not caplog.text


@pytest.mark.slow
def test_classes_without_training_images_cost_no_more_than_their_test_images() -> None:
    blobs = Blobs(4, 20)
    train, test = blobs.draw(80, 1), blobs.draw(40, 2)
    assert train.labels is not None and test.labels is not None
    kept = train.labels != 3
    train = Pixels(train.images[kept], train.labels[kept], train.classes)
    measured = make_probe(train, test)
    unseen = measured.features("test")
    solution = LinearFeatures(config()).train(measured).solution
    top1, _ = accuracy(solution, unseen.features, torch.from_numpy(test.labels))
    assert top1 == pytest.approx(100 * (test.labels != 3).mean())


def on_ranks() -> tuple[dict[str, float], Tensor]:
    benchmark, measured = LinearFeatures(config()), probe()
    return benchmark.run(measured), benchmark.train(measured).solution.theta


@pytest.mark.slow
def test_two_ranks_choose_and_solve_what_one_does() -> None:
    metrics, theta = on_ranks()
    (first, one), (second, other) = run_ranks(on_ranks, 2)
    assert first == second == metrics
    assert one.equal(other)
    torch.testing.assert_close(one, theta, atol=1e-3, rtol=0)


def test_the_sweep_is_dinov2s() -> None:
    powers = LinearFeatures.Config().powers()
    np.testing.assert_allclose(powers, np.arange(45) * 0.25 - 6)
    one = LinearFeatures.Config(c_powers=(-1.0, -1.0), c_count=1)
    assert one.powers() == [-1.0]
    assert "45 values of C in 1e-6..1e5" in LinearFeatures(LinearFeatures.Config()).protocol


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"c_powers": [2, -2]}, r"c_powers: must rise.*\[2\.0, -2\.0\] for 45"),
        ({"c_count": 1}, "c_powers: must rise, or be equal for c_count=1"),
        ({"c_count": 0}, "c_count: must be positive, got 0"),
        ({"held_out": 1.0}, r"held_out: must lie between 0 and 1, got 1\.0"),
        ({"max_iterations": 0}, "max_iterations: must be positive"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(LinearFeatures.Config, fields)
