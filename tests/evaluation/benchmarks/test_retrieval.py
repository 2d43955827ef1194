from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from tests_support.probes import Blobs, Pixels, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.data.sources.queries import QuerySource, Relevance
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.benchmarks.retrieval import Retrieval, measure

GOLDEN = Path(__file__).parents[2] / "data" / "dino_eval.npz"


def relevance(easy: list[int], hard: list[int], junk: list[int]) -> Relevance:
    return Relevance(*(np.array(places, dtype=np.int64) for places in (easy, hard, junk)))


def test_equals_the_official_numbers() -> None:
    """Six queries in forty images; one finds nothing in either setting, one has no easy image."""
    golden = np.load(GOLDEN)
    place = np.empty((6, 40), dtype=np.int64)
    for query in range(6):
        place[query, golden["map_ranks"][:, query]] = np.arange(40)
    queries = tuple(
        relevance(*(golden[f"map_gnd{query}_{kind}"].tolist() for kind in ("easy", "hard", "junk")))
        for query in range(6)
    )
    metrics = measure(place, queries, [1, 5, 10])
    expected = {}
    for setting, letter in (("medium", "M"), ("hard", "H")):
        expected[f"map_{setting}"] = 100 * float(golden[f"map{letter}"])
        for column, k in enumerate((1, 5, 10)):
            expected[f"mp{k}_{setting}"] = 100 * float(golden[f"mpr{letter}"][column])
    assert metrics == pytest.approx(expected, abs=1e-9)
    assert next(iter(metrics)) == "map_medium"
    for query in range(6):
        alone = measure(place[[query]], (queries[query],), [1])
        for setting, official in (("medium", "apsM"), ("hard", "apsH")):
            if np.isnan(golden[official][query]):
                assert f"map_{setting}" not in alone
            else:
                assert alone[f"map_{setting}"] == pytest.approx(100 * golden[official][query])


def test_by_hand() -> None:
    """The list: junk, easy, wrong, hard. Medium: right, wrong, right; hard: wrong, right."""
    place = np.array([[0, 1, 2, 3]])
    metrics = measure(place, (relevance([1], [3], [0]),), [1, 5])
    assert metrics["map_medium"] == pytest.approx(100 * (1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert metrics["map_hard"] == pytest.approx(100 * (0 + 1 / 2) / 2)
    assert (metrics["mp1_medium"], metrics["mp1_hard"]) == (100, 0)
    assert metrics["mp5_medium"] == pytest.approx(100 * 2 / 3) and metrics["mp5_hard"] == 50


class Views(Pixels, QuerySource):
    """Images with what they should find."""


def landmark_probe(spread: float = 60) -> Probe:
    """Five landmarks; of a query's own, every third image is easy, hard and junk."""
    blobs = Blobs(classes=5, spread=spread)
    database, drawn = blobs.draw(60, 1), blobs.draw(12, 2)
    assert database.labels is not None and drawn.labels is not None
    queries = Views(drawn.images, None, ())
    queries.relevance = tuple(
        relevance(own[0::3], own[1::3], own[2::3])
        for own in (np.flatnonzero(database.labels == label).tolist() for label in drawn.labels)
    )
    return make_probe(Pixels(database.images, None, ()), queries)


def test_well_separated_landmarks_are_all_found() -> None:
    metrics = Retrieval(Retrieval.Config()).run(landmark_probe(spread=5))
    names = ["map_medium", "map_hard"]
    names += [f"mp{k}_{setting}" for k in (1, 5, 10) for setting in ("medium", "hard")]
    assert metrics == pytest.approx(dict.fromkeys(names, 100))
    benchmark = Retrieval(Retrieval.Config(scales=[1.0, 0.5]))
    assert "scales 1, 0.5" in benchmark.protocol and "arXiv:1803.11285" in benchmark.protocol


def measured() -> dict[str, float]:
    return Retrieval(Retrieval.Config()).run(landmark_probe())


@pytest.mark.slow
def test_ranks_agree_with_one_process() -> None:
    alone = measured()
    assert 20 < alone["map_hard"] < 95
    assert run_ranks(measured, 2) == [alone] * 2


def test_size_and_scales_reach_the_encoder() -> None:
    seen: list[tuple[int, ...]] = []
    probe = landmark_probe()

    def encode(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape[2:]))
        return images.mean(dim=(2, 3))

    benchmark = Retrieval(Retrieval.Config(image_size=2, scales=[1.0, 0.5]))
    benchmark.run(replace(probe, encode=encode))
    assert set(seen) == {(2, 2), (1, 1)}


def test_a_setting_without_queries_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        metrics = measure(np.array([[0, 1]]), (relevance([1], [], []),), [1])
    assert list(metrics) == ["map_medium", "mp1_medium"]
    assert "setting hard left out" in caplog.text


def test_a_data_set_without_queries_is_refused() -> None:
    blobs = Blobs(2, 5)
    with pytest.raises(DataError, match="dataset=revisited or dataset=copydays"):
        Retrieval(Retrieval.Config()).run(make_probe(blobs.draw(4, 1), blobs.draw(4, 2)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0}, "image_size: must be 1 or more, got 0"),
        ({"scales": []}, "scales: needs one or more positive numbers"),
        ({"at": [0]}, r"at: lists have 1 image or more, got \[0\]"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(Retrieval.Config, fields)
