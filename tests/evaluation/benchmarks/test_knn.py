from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor

from tests_support.probes import Blobs, make_probe
from tests_support.ranks import run_ranks
from unlabeled.clustering import neighbours
from unlabeled.clustering.neighbours import nearest
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.synthetic import Synthetic
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.accuracy import top_accuracy
from unlabeled.evaluation.benchmarks.knn import KNN, knn_classify
from unlabeled.evaluation.evaluate import evaluate

GOLDEN = Path(__file__).parents[2] / "data" / "dino_eval.npz"


def features(rows: int, dim: int, seed: int) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def labels(rows: int, classes: int, seed: int) -> Tensor:
    return torch.randint(0, classes, (rows,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", ["0.07", "0.1"])
def test_equals_the_official_classifier(temperature: str) -> None:
    golden = np.load(GOLDEN)
    train, train_labels, test, test_labels = (
        torch.from_numpy(golden[f"knn_{name}"])
        for name in ("train", "train_labels", "test", "test_labels")
    )
    expected = golden[f"knn_T{temperature}_top1_top5"].tolist()
    for k, (top1, top5) in zip(golden["knn_k"].tolist(), expected, strict=True):
        scores = knn_classify(
            train,
            train_labels,
            test,
            k=k,
            temperature=float(temperature),
            num_classes=int(golden["knn_num_classes"]),
        )
        assert top_accuracy(scores, test_labels, 1) == pytest.approx(top1)
        assert top_accuracy(scores, test_labels, min(5, k)) == pytest.approx(top5)


def naive_votes(train: Tensor, own: Tensor, test: Tensor, k: int, classes: int) -> np.ndarray:
    """Votes relative to those of the nearest neighbour, in float64 with scikit-learn's search."""
    search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute")
    distances, indices = search.fit(train.double().numpy()).kneighbors(test.double().numpy())
    scores = np.zeros((len(test), classes))
    for row in range(len(test)):
        for distance, index in zip(distances[row], indices[row], strict=True):
            weight = math.exp((distances[row, 0] - distance) / 0.07)
            scores[row, int(own[index])] += weight
    return scores


@pytest.mark.parametrize("blocks", [(1024, 65536), (7, 13)])
def test_equals_an_independent_search(
    blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "TEST_BLOCK", blocks[0])
    monkeypatch.setattr(neighbours, "TRAIN_BLOCK", blocks[1])
    train, test, own = features(60, 8, 0) * 5, features(33, 8, 1), labels(60, 4, 2)
    for k in (1, 9, 60):
        scores = knn_classify(train, own, test, k=k, temperature=0.07, num_classes=4)
        expected = naive_votes(train, own, test, k, 4)
        np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("search", ["torch", "faiss"])
def test_predictions_are_those_of_scikit_learns_classifier(
    search: Literal["torch", "faiss"],
) -> None:
    probe = make_probe(Blobs(classes=6, spread=90).draw(90, 1), Blobs(6, 90).draw(50, 2))
    train, test = probe.features("train"), probe.features("test")
    assert train.labels is not None and test.labels is not None
    for k, temperature in ((1, 0.07), (9, 0.07), (40, 0.5)):
        oracle = KNeighborsClassifier(
            k, metric="cosine", weights=lambda d, t=temperature: np.exp((1 - d) / t)
        )
        oracle.fit(train.features.double().numpy(), train.labels.numpy())
        right = oracle.score(test.features.double().numpy(), test.labels.numpy())
        settings = KNN.Config(k=[k], report_k=k, temperature=temperature, search=search)
        assert KNN(settings).run(probe)["top1"] == pytest.approx(100 * right)


def test_low_temperatures_and_half_precision_stay_finite() -> None:
    train, test, own = features(50, 4, 0), features(20, 4, 1), labels(50, 3, 2)
    cold = knn_classify(train, own, test, k=50, temperature=1e-4, num_classes=3)
    assert torch.isfinite(cold).all()
    first = nearest(train, test, k=1)[1][:, 0]
    assert cold.argmax(dim=1).equal(own[first])  # at temperature 0 the nearest decides
    half = knn_classify(train.half(), own, test.half(), k=5, temperature=0.07, num_classes=3)
    assert half.dtype == torch.float32 and torch.isfinite(half).all()
    zero = knn_classify(train, own, 0 * test, k=5, temperature=0.07, num_classes=3)
    assert torch.isfinite(zero).all()


def test_scale_of_features_is_irrelevant_and_relabelling_permutes_votes() -> None:
    train, test, own = features(80, 6, 0), features(30, 6, 1), labels(80, 5, 2)
    scores = knn_classify(train, own, test, k=11, temperature=0.07, num_classes=5)
    scaled = train * torch.linspace(0.1, 9, 80).unsqueeze(1)
    again = knn_classify(scaled, own, 3 * test, k=11, temperature=0.07, num_classes=5)
    torch.testing.assert_close(again, scores)
    renamed = knn_classify(train, 4 - own, test, k=11, temperature=0.07, num_classes=5)
    torch.testing.assert_close(renamed, scores.flip(1))


def test_more_neighbours_than_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="k = 6 neighbours of only 5"):
        knn_classify(
            features(5, 3, 0), labels(5, 2, 0), features(2, 3, 0), k=6, temperature=1, num_classes=2
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": []}, "k: needs one or more numbers"),
        ({"k": [0, 20]}, r"k: needs .* got \[0, 20\]"),
        ({"report_k": 7}, r"report_k: must be one of k = \[10, 20, 100, 200\], got 7"),
        ({"temperature": 0}, "temperature: must be positive, got 0"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(KNN.Config, fields)


@pytest.mark.parametrize("search", ["torch", "faiss"])
def test_run_reports_every_k_and_the_main_one(search: Literal["torch", "faiss"]) -> None:
    probe = make_probe(Blobs(classes=6, spread=90).draw(90, 1), Blobs(6, 90).draw(50, 2))
    benchmark = KNN(KNN.Config(k=[1, 5, 20], report_k=5, search=search))
    metrics = benchmark.run(probe)
    assert list(metrics) == ["top1", "top1_k1", "top1_k5", "top5_k5", "top1_k20"]
    assert metrics["top1"] == metrics["top1_k5"] < metrics["top5_k5"]
    train, test = probe.features("train"), probe.features("test")
    assert train.labels is not None and test.labels is not None
    for k in (1, 5, 20):
        scores = naive_votes(train.features, train.labels, test.features, k, 6)
        right = (scores.argmax(axis=1) == test.labels.numpy()).mean()
        assert metrics[f"top1_k{k}"] == pytest.approx(100 * right)
        assert 20 < metrics[f"top1_k{k}"] < 95
    assert "5-NN" in benchmark.protocol and "arXiv:2104.14294" in benchmark.protocol
    assert benchmark.run(probe) == metrics


def test_separated_classes_are_all_found_and_random_labels_are_not() -> None:
    blobs = Blobs(classes=4, spread=5)
    train, test = blobs.draw(80, 1), blobs.draw(40, 2)
    assert KNN(KNN.Config(k=[5], report_k=5)).run(make_probe(train, test))["top1"] == 100
    test.labels = (test.labels + 1) % 4
    assert KNN(KNN.Config(k=[5], report_k=5)).run(make_probe(train, test))["top1"] == 0


def test_k_beyond_the_training_set(caplog: pytest.LogCaptureFixture) -> None:
    probe = make_probe(Blobs(3, 20).draw(15, 1), Blobs(3, 20).draw(8, 2))
    with pytest.raises(DataError, match="report_k = 20 neighbours are more than the 15"):
        KNN(KNN.Config()).run(probe)
    metrics = KNN(KNN.Config(k=[10, 20, 100], report_k=10)).run(probe)
    assert list(metrics) == ["top1", "top1_k10", "top5_k10"]
    assert "k = [20, 100] left out: only 15" in caplog.text
    assert list(KNN(KNN.Config(k=[15], report_k=15)).run(probe)) == ["top1", "top1_k15", "top5_k15"]


def test_fewer_than_five_neighbours_name_fewer_than_five_classes() -> None:
    probe = make_probe(Blobs(classes=6, spread=90).draw(90, 1), Blobs(6, 90).draw(50, 2))
    metrics = KNN(KNN.Config(k=[1], report_k=1)).run(probe)
    assert metrics["top5_k1"] == metrics["top1_k1"] < 100


def naive_leave_one_out(rows: Tensor, own: Tensor, k: int, classes: int) -> np.ndarray:
    """Votes for every row by a search among the others alone, a search a row."""
    scores = []
    for row in range(len(rows)):
        others = [other for other in range(len(rows)) if other != row]
        scores.append(naive_votes(rows[others], own[others], rows[[row]], k, classes)[0])
    return np.stack(scores)


@pytest.mark.parametrize("search", ["torch", "faiss"])
@pytest.mark.parametrize("blocks", [(1024, 65536), (7, 13)])
def test_leaving_one_out_equals_a_search_among_the_others(
    blocks: tuple[int, int],
    search: Literal["torch", "faiss"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "TEST_BLOCK", blocks[0])
    monkeypatch.setattr(neighbours, "TRAIN_BLOCK", blocks[1])
    blobs = Blobs(classes=4, spread=90)
    probe = make_probe(blobs.draw(45, 1), blobs.draw(9, 2))
    probe.test.labels = None  # nobody looks at the test split
    benchmark = KNN(KNN.Config(k=[1, 5, 44], report_k=5, leave_one_out=True, search=search))
    metrics = benchmark.run(probe)
    train = probe.features("train")
    assert train.labels is not None
    for k in (1, 5, 44):
        scores = naive_leave_one_out(train.features, train.labels, k, 4)
        right = (scores.argmax(axis=1) == train.labels.numpy()).mean()
        assert metrics[f"top1_k{k}"] == pytest.approx(100 * right)
        assert 20 < metrics[f"top1_k{k}"] < 95
    assert list(metrics) == ["top1", "top1_k1", "top1_k5", "top5_k5", "top1_k44"]
    assert list(probe.cache) == [f"train {probe.train.fingerprint()}"]
    assert "all other training images" in benchmark.protocol


def test_labels_that_only_the_row_itself_has_are_never_found() -> None:
    train = Blobs(classes=4, spread=5).draw(40, 1)
    train.labels, train.classes = np.arange(40), tuple(map(str, range(40)))
    metrics = KNN(KNN.Config(k=[1], report_k=1, leave_one_out=True)).run(make_probe(train, train))
    assert metrics["top1"] == 0  # with the row among its neighbours it would be 100


def test_k_beyond_the_others(caplog: pytest.LogCaptureFixture) -> None:
    probe = make_probe(Blobs(3, 20).draw(15, 1), Blobs(3, 20).draw(8, 2))
    with pytest.raises(DataError, match=r"report_k = 15 .* the 14 other training images"):
        KNN(KNN.Config(k=[15], report_k=15, leave_one_out=True)).run(probe)
    metrics = KNN(KNN.Config(k=[14, 15], report_k=14, leave_one_out=True)).run(probe)
    assert list(metrics) == ["top1", "top1_k14", "top5_k14"]
    assert "k = [15] left out: only 14 other training images" in caplog.text
    probe.train.labels = None
    with pytest.raises(DataError, match="the train split has no labels"):
        KNN(KNN.Config(leave_one_out=True)).run(probe)


def leave_one_out_on_ranks() -> dict[str, float]:
    probe = make_probe(Blobs(4, 90).draw(45, 1), Blobs(4, 90).draw(9, 2))
    return KNN(KNN.Config(k=[5], report_k=5, leave_one_out=True)).run(probe)


@pytest.mark.slow
def test_two_ranks_leave_out_what_one_does() -> None:
    assert run_ranks(leave_one_out_on_ranks, 2) == [leave_one_out_on_ranks()] * 2


def saved(source: Source, folder: Path) -> None:
    """Write the images of a source into a folder a class."""
    assert source.labels is not None
    for index, label in enumerate(source.labels.tolist()):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.image(index)).save(folder / str(label) / f"{index}.png")


def asked(root: Path, out: Path, *overrides: str) -> EvaluateConfig:
    choices = (
        "weights=random backbone=raw_pixels backbone.image_size=16 dataset=folder "
        "transform@eval_transform=center_crop_small eval_transform.size=16 benchmark.k=[5] "
        "benchmark.report_k=5 loader.workers=0 device=cpu"
    )
    where = [f"dataset.root={root}", f"out={out}"]
    composed = compose_config("evaluate", [*choices.split(), *where, *overrides])
    return build_config(EvaluateConfig, composed.data, composed.problems)


@pytest.mark.slow
def test_a_folder_without_a_test_split_is_measured_by_leaving_one_out(tmp_path: Path) -> None:
    source = Synthetic(
        Synthetic.Config(num_samples=60, num_classes=3, image_size=16), split="train"
    )
    saved(source, tmp_path / "images")
    out = tmp_path / "knn.json"
    with pytest.raises(DataError, match="has no test split"):
        evaluate(asked(tmp_path / "images", out), torch.device("cpu"))
    one = asked(tmp_path / "images", out, "benchmark.leave_one_out=true")
    evaluate(one, torch.device("cpu"))
    result = json.loads(out.read_text())
    assert result["metrics"]["top1"] > 60  # chance is 33
    assert one.dataset is not None
    assert result["fingerprint"] == one.dataset.build(split="train").fingerprint()
