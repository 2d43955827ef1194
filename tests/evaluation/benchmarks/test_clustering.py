from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from tests_support.probes import Blobs, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.data.sources.digits import Digits
from unlabeled.data.transforms.center_crop import CenterCrop
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.benchmarks.clustering import Clustering, compare, matched_accuracy

FEW = Clustering.Config(restarts=5)


def partitions(seed: int, clusters: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters that have something to do with the classes, of 30 images."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, 30)
    found = np.where(random.random(30) < 0.5, labels % clusters, random.integers(0, clusters, 30))
    return found, labels


@pytest.mark.parametrize(("clusters", "classes"), [(4, 4), (6, 4), (3, 5)])
def test_accuracy_is_the_best_of_all_namings(clusters: int, classes: int) -> None:
    for seed in range(10):
        found, labels = partitions(seed, clusters, classes)
        larger = max(clusters, classes)
        best = max(
            sum(naming[cluster] == label for cluster, label in zip(found, labels, strict=True))
            for naming in itertools.permutations(range(larger), clusters)
        )
        assert matched_accuracy(found, labels) == pytest.approx(100 * best / 30)


def test_nmi_and_ari_are_what_their_papers_define() -> None:
    for seed in range(10):
        found, labels = partitions(seed, 5, 4)
        metrics = compare(found, labels)
        assert metrics["nmi"] == pytest.approx(100 * naive_nmi(found, labels))
        assert metrics["ari"] == pytest.approx(100 * naive_ari(found, labels))
        assert 0 < metrics["nmi"] < 100


def naive_nmi(found: np.ndarray, labels: np.ndarray) -> float:
    """2 I(U, V) / (H(U) + H(V))."""

    def entropy(values: list[object]) -> float:
        return -sum(n / 30 * math.log(n / 30) for n in Counter(values).values())

    u, v = found.tolist(), labels.tolist()
    both = entropy(list(zip(u, v, strict=True)))
    return 2 * (entropy(u) + entropy(v) - both) / (entropy(u) + entropy(v))


def naive_ari(found: np.ndarray, labels: np.ndarray) -> float:
    """(agreement - expected) / (largest - expected) over all pairs of images."""
    pairs = list(itertools.combinations(range(30), 2))
    in_u = {pair for pair in pairs if found[pair[0]] == found[pair[1]]}
    in_v = {pair for pair in pairs if labels[pair[0]] == labels[pair[1]]}
    expected = len(in_u) * len(in_v) / len(pairs)
    return (len(in_u & in_v) - expected) / ((len(in_u) + len(in_v)) / 2 - expected)


def test_names_of_clusters_are_irrelevant_and_perfect_ones_are_all_right() -> None:
    found, labels = partitions(3, 5, 5)
    renamed = np.array([3, 0, 4, 1, 2])[found]
    assert compare(renamed, labels) == pytest.approx(compare(found, labels))
    perfect = compare((labels + 2) % 5, labels)
    assert perfect == pytest.approx({"accuracy": 100, "nmi": 100, "ari": 100})
    one = compare(np.zeros(30, dtype=np.int64), labels)
    assert one["nmi"] == pytest.approx(0) and one["ari"] == pytest.approx(0)
    assert one["accuracy"] == pytest.approx(100 * np.bincount(labels).max() / 30)


def blob_probe(spread: float = 150) -> Probe:
    blobs = Blobs(classes=5, spread=spread)
    return make_probe(blobs.draw(80, 1), blobs.draw(50, 2))


@pytest.mark.parametrize("fit_on", ["train", "test"])
def test_separated_classes_are_found_from_either_split(fit_on: str) -> None:
    config = build_config(Clustering.Config, {"restarts": 4, "fit_on": fit_on})
    metrics = Clustering(config).run(blob_probe(spread=5))
    assert list(metrics) == ["accuracy", "nmi", "ari"]
    assert metrics == pytest.approx({"accuracy": 100, "nmi": 100, "ari": 100})


def test_the_chosen_run_has_the_smallest_sum_of_squares() -> None:
    """Against the plain sum, over runs asked for one by one."""
    probe = blob_probe()
    rows = nn.functional.normalize(probe.features("train").features).double().numpy()
    sums = []
    for restarts in range(1, 7):
        config = Clustering.Config(restarts=restarts, num_clusters=12)
        found = Clustering(config).clusters(replace(probe, test=probe.train, cache={}))
        members = [rows[found == cluster] for cluster in range(12)]
        sums.append(sum(((part - part.mean(axis=0)) ** 2).sum() for part in members))
    assert sums == sorted(sums, reverse=True) and sums[0] > sums[-1]


def test_every_test_image_is_in_its_nearest_cluster_after_convergence() -> None:
    probe = blob_probe()
    probe = replace(probe, test=probe.train, cache={})
    found = Clustering(FEW).clusters(probe)
    rows = nn.functional.normalize(probe.features("train").features).double().numpy()
    means = np.stack([rows[found == cluster].mean(axis=0) for cluster in range(5)])
    distances = ((rows[:, None] - means) ** 2).sum(axis=2)
    assert (distances.argmin(axis=1) == found).mean() > 0.97


def test_scale_counts_only_where_it_is_asked_for() -> None:
    probe = blob_probe()
    dimmed = replace(probe, encode=lambda images: 0.125 * probe.encode(images), cache={})
    assert np.array_equal(Clustering(FEW).clusters(dimmed), Clustering(FEW).clusters(probe))
    raw = Clustering(replace(FEW, normalize_features=False)).clusters(probe)
    assert not np.array_equal(raw, Clustering(FEW).clusters(probe))


def test_no_label_has_a_part_in_the_clusters() -> None:
    probe = blob_probe()
    before = Clustering(FEW).clusters(probe)
    for source in (probe.train, probe.test):
        source.labels = None
    assert np.array_equal(Clustering(FEW).clusters(replace(probe, cache={})), before)


def on_ranks() -> tuple[dict[str, float], np.ndarray]:
    return Clustering(FEW).run(blob_probe()), Clustering(FEW).clusters(blob_probe())


@pytest.mark.slow
def test_ranks_agree_with_one_process() -> None:
    metrics, clusters = on_ranks()
    assert metrics["accuracy"] < 100
    for found, own in run_ranks(on_ranks, 2):
        assert found == metrics and np.array_equal(own, clusters)


def test_more_clusters_than_images_is_an_error_and_than_classes_is_not() -> None:
    probe = blob_probe()
    with pytest.raises(DataError, match="81 clusters of only 80 images in the train split"):
        Clustering(replace(FEW, num_clusters=81)).run(probe)
    many = Clustering(replace(FEW, num_clusters=20)).run(probe)
    assert many["accuracy"] < Clustering(FEW).run(blob_probe(5))["accuracy"]


def test_equal_images_leave_clusters_empty() -> None:
    probe = blob_probe()
    same = replace(probe, encode=lambda images: 0 * probe.encode(images) + 1, cache={})
    found = Clustering(FEW).run(same)
    assert found["nmi"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_clusters": 1}, "num_clusters: must be 2 or more, got 1"),
        ({"restarts": 0}, "restarts: must be 1 or more, got 0"),
        ({"fit_on": "val"}, "fit_on: got 'val', accepted: train, test"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(Clustering.Config, fields)


@pytest.mark.slow
def test_handwritten_digits_form_clusters() -> None:
    """Raw pixels of 1,797 real images; k-means is known to find about 80 % of them."""
    train, test = (Digits(Digits.Config(), split=split) for split in ("train", "test"))
    probe = replace(
        make_probe(train, test, feature_dim=192),
        pipeline=CenterCrop(CenterCrop.Config(size=8, resize=None)),
    )
    metrics = Clustering(FEW).run(probe)
    assert metrics["accuracy"] > 65 and metrics["nmi"] > 60 and metrics["ari"] > 50
