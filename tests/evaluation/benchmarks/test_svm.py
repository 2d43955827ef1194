from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC
from torch import nn

from tests_support.probes import Blobs, Pixels, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.data.sources.digits import Digits
from unlabeled.data.transforms.center_crop import CenterCrop
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.benchmarks.svm import SVM
from unlabeled.evaluation.layers import Layer
from unlabeled.registry import Component

BLOBS = Blobs(classes=4, spread=150)
FEW = SVM.Config(costs=[0.1, 1.0, 10.0])


def blob_probe() -> Probe:
    """Fifteen training images of every class: they divide into three folds in one way only."""
    drawn = BLOBS.draw(200, 1)
    assert drawn.labels is not None
    kept = np.sort(np.concatenate([np.flatnonzero(drawn.labels == c)[:15] for c in range(4)]))
    train = Pixels(drawn.images[kept], drawn.labels[kept], drawn.classes)
    return make_probe(train, BLOBS.draw(40, 2))


def several_labels(source: Pixels, undecided: tuple[tuple[int, int], ...] = ()) -> Pixels:
    """The same images and classes, said as a table; `undecided` are (image, class)."""
    assert source.labels is not None
    shown = np.where(np.arange(4) == source.labels[:, None], 1, -1).astype(np.int8)
    for image, number in undecided:
        shown[image, number] = 0
    table = Pixels(source.images, None, source.classes)
    table.multi_labels = shown
    return table


@pytest.mark.slow
def test_equals_machines_fitted_one_by_one() -> None:
    """The cost of every class by its own loop; scores by scikit-learn alone."""
    probe = blob_probe()
    scores = SVM(FEW).scores(probe)
    rows, test = (probe.features(split).features.double().numpy() for split in ("train", "test"))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5
    test /= np.linalg.norm(test, axis=1, keepdims=True) + 1e-5
    assert probe.train.labels is not None
    for number in range(4):
        sign = np.where(probe.train.labels == number, 1, -1)
        held = np.zeros(60, dtype=np.int64)
        for kind in (1, -1):
            for fold, part in enumerate(np.array_split(np.flatnonzero(sign == kind), 3)):
                held[part] = fold
        machines = [
            LinearSVC(C=c, class_weight={1: 2, -1: 1}, dual=True, max_iter=2000, random_state=0)
            for c in FEW.costs
        ]
        means = [
            np.mean(
                [
                    average_precision_score(
                        sign[held == fold],
                        machine.fit(rows[held != fold], sign[held != fold]).decision_function(
                            rows[held == fold]
                        ),
                    )
                    for fold in range(3)
                ]
            )
            for machine in machines
        ]
        best = machines[int(np.argmax(means))].fit(rows, sign)
        np.testing.assert_allclose(scores[:, number], best.decision_function(test), rtol=1e-6)


@pytest.mark.slow
def test_metrics_lie_between_chance_and_certainty() -> None:
    probe = blob_probe()
    metrics = SVM(FEW).run(probe)
    assert list(metrics) == ["map", "map_11_points"]
    assert all(40 < value < 95 for value in metrics.values()), metrics
    assert SVM(FEW).run(probe) == metrics
    easy = Blobs(classes=4, spread=5)
    found = SVM(FEW).run(make_probe(easy.draw(60, 1), easy.draw(40, 2)))
    assert found == {"map": 100, "map_11_points": 100}
    assert "3-fold" in SVM(FEW).protocol and "arXiv:1905.01235" in SVM(FEW).protocol


@pytest.mark.slow
def test_one_label_is_a_table_with_one_class_in_each_row() -> None:
    alone, table = blob_probe(), blob_probe()
    assert isinstance(table.train, Pixels) and isinstance(table.test, Pixels)
    table = replace(
        table, train=several_labels(table.train), test=several_labels(table.test), cache={}
    )
    assert SVM(FEW).run(table) == SVM(FEW).run(alone)


@pytest.mark.slow
def test_undecided_is_negative_in_training_and_left_out_of_the_test() -> None:
    probe = blob_probe()
    train, test = probe.train, probe.test
    assert isinstance(train, Pixels) and isinstance(test, Pixels) and train.labels is not None
    doubtful = [int(row) for row in np.flatnonzero(train.labels == 1)[:3]]
    marked = replace(probe, train=several_labels(train, tuple((row, 1) for row in doubtful)))
    negative = several_labels(train)
    assert negative.multi_labels is not None
    negative.multi_labels[doubtful, 1] = -1
    scores = SVM(FEW).scores(replace(marked, cache={}))
    assert np.array_equal(scores, SVM(FEW).scores(replace(probe, train=negative, cache={})))
    assert not np.array_equal(scores, SVM(FEW).scores(probe))
    # Of class 0 the first test images do not count: as if there were none for it, others as before.
    skipped = replace(probe, test=several_labels(test, tuple((row, 0) for row in range(10))))
    shorter = Pixels(test.images[10:], test.labels[10:], test.classes)  # type: ignore[index]
    whole, rest = probe, replace(probe, test=shorter, cache={})
    by_class = []
    for number in range(4):
        found = {
            name: _one_class(each, number)
            for name, each in (("skipped", skipped), ("whole", whole), ("rest", rest))
        }
        by_class.append(found)
    assert by_class[0]["skipped"] == by_class[0]["rest"] != by_class[0]["whole"]
    assert all(found["skipped"] == found["whole"] for found in by_class[1:])


def _one_class(probe: Probe, number: int) -> float:
    """The AP of one class: all the others are undecided in every test image."""
    test = probe.test
    assert isinstance(test, Pixels)
    table = test if test.multi_labels is not None else several_labels(test)
    assert table.multi_labels is not None
    only = Pixels(table.images, None, table.classes)
    only.multi_labels = np.where(np.arange(4) == number, table.multi_labels, 0).astype(np.int8)
    return SVM(FEW).run(replace(probe, test=only, cache={}))["map"]


@pytest.mark.slow
def test_no_test_label_has_a_part_in_the_scores() -> None:
    probe = blob_probe()
    scores = SVM(FEW).scores(probe)
    assert probe.test.labels is not None
    probe.test.labels[...] = (probe.test.labels + 1) % 4
    assert np.array_equal(SVM(FEW).scores(replace(probe, cache={})), scores)
    probe.test.labels = None
    assert np.array_equal(SVM(FEW).scores(replace(probe, cache={})), scores)


def on_ranks() -> tuple[dict[str, float], np.ndarray]:
    return SVM(FEW).run(blob_probe()), SVM(FEW).scores(blob_probe())


@pytest.mark.slow
def test_ranks_agree_with_one_process() -> None:
    metrics, scores = on_ranks()
    for found, own in run_ranks(on_ranks, 2):
        assert found == metrics and np.array_equal(own, scores)


def test_classes_without_test_images_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    probe = blob_probe()
    test = probe.test
    assert isinstance(test, Pixels) and test.labels is not None
    kept = test.labels != 2
    fewer = replace(probe, test=Pixels(test.images[kept], test.labels[kept], test.classes))
    with caplog.at_level(logging.WARNING):
        SVM(FEW).run(fewer)
    assert "class class-2 left out: no test image shows it" in caplog.text
    table = several_labels(test)
    table.multi_labels = np.full((40, 4), -1, dtype=np.int8)
    with pytest.raises(DataError, match="no test image shows any class"):
        SVM(FEW).run(replace(probe, test=table))


def test_too_few_images_for_the_folds_are_named() -> None:
    probe = blob_probe()
    train = probe.train
    assert isinstance(train, Pixels) and train.labels is not None
    kept = np.append(np.flatnonzero(train.labels != 3), np.flatnonzero(train.labels == 3)[:2])
    few = replace(probe, train=Pixels(train.images[kept], train.labels[kept], train.classes))
    with pytest.raises(DataError, match=r"class class-3 is in 2 of .* 3 folds need 3 with it"):
        SVM(FEW).run(few)
    assert SVM(replace(FEW, folds=2)).run(few)["map"] > 0


@pytest.mark.slow
def test_a_layer_and_a_view_of_its_own_are_measured_as_if_they_were_the_backbones() -> None:
    """VISSL classifies pooled maps of squashed images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = (
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten()).eval().requires_grad_(False)
        )
    probe = replace(blob_probe(), backbone=net)
    view = Component("transform", "center_crop", CenterCrop.Config(size=3, resize=None))
    layer = Layer(module="0", pool=(2, 1, 0), batch_norm=False)
    chosen = SVM(replace(FEW, layer=layer, view=view))
    expected = replace(
        probe,
        encode=lambda images: nn.functional.avg_pool2d(net[0](images), 2, 1).flatten(1),
        feature_dim=32,
        pipeline=view.build(),
        cache={},
    )
    metrics = chosen.run(probe)
    assert metrics == SVM(FEW).run(expected)
    assert metrics != SVM(FEW).run(probe)
    assert "unit features of 0, (2, 1, 0), center_crop view" in chosen.protocol
    missing = SVM(replace(FEW, layer=replace(layer, module="layer4")))
    with pytest.raises(ConfigError, match=r"^benchmark\.layer\.module: .* no module 'layer4'"):
        missing.run(probe)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"layer": {"module": "layer4", "pool": 1, "batch_norm": True}},
            r"layer\.batch_norm: a linear machine has none",
        ),
        ({"view": {"name": "multi_crop"}}, "view: must emit one view, not 8"),
        ({"costs": []}, "costs: needs one or more positive"),
        ({"costs": [1.0, 0.0]}, r"costs: .* got \[1.0, 0.0\]"),
        ({"folds": 1}, "folds: must be 2 or more, got 1"),
        ({"positive_weight": 0}, "positive_weight: must be positive, got 0"),
        ({"max_iterations": -1}, "max_iterations: must be positive, got -1"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(SVM.Config, fields)


@pytest.mark.slow
def test_handwritten_digits() -> None:
    """1,347 real images, raw pixels: scikit-learn's own linear machine is right on about 95 %."""
    train, test = (Digits(Digits.Config(), split=split) for split in ("train", "test"))
    probe = replace(
        make_probe(train, test, feature_dim=192),
        pipeline=CenterCrop(CenterCrop.Config(size=8, resize=None)),
    )
    assert SVM(replace(FEW, costs=[1.0, 10.0])).run(probe)["map"] > 95
