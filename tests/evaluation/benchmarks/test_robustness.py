from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests_support.probes import SIDE, Blobs, Pixels, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig
from unlabeled.data.transforms.random_crop import RandomCrop
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe
from unlabeled.evaluation.benchmarks.finetune import Finetune
from unlabeled.evaluation.benchmarks.knn import KNN
from unlabeled.evaluation.benchmarks.linear import Linear
from unlabeled.evaluation.benchmarks.linear_features import LinearFeatures
from unlabeled.evaluation.benchmarks.linear_layers import LinearLayers
from unlabeled.evaluation.benchmarks.robustness import Corruption, Robustness
from unlabeled.evaluation.corruptions import CORRUPTIONS
from unlabeled.evaluation.layers import Layer
from unlabeled.registry import Component

FEW: dict[str, Any] = {"resolutions": [0.5], "rotations": [90.0], "severities": [1, 5]}
CROP = Component("transform", "random_crop", RandomCrop.Config(size=SIDE, scale=(0.8, 1.0)))
LAYER = Layer(module="0", pool=1, batch_norm=True)
INNER = {
    "knn": Component("benchmark", "knn", KNN.Config(k=[3], report_k=3)),
    "linear": Component(
        "benchmark", "linear", Linear.Config(epochs=3, batch_size=32, train_transform=CROP)
    ),
    "linear, encoded once": Component(
        "benchmark", "linear", Linear.Config(augment=False, epochs=5, batch_size=32)
    ),
    "linear_features": Component(
        "benchmark", "linear_features", LinearFeatures.Config(c_powers=(0.0, 1.0), c_count=2)
    ),
    "linear_layers": Component(
        "benchmark",
        "linear_layers",
        LinearLayers.Config(layers={"all": LAYER}, augment=False, epochs=3, lr=3.0),
    ),
    "finetune": Component(
        "benchmark", "finetune", Finetune.Config(epochs=3, batch_size=32, train_transform=CROP)
    ),
}


def config(name: str = "knn", **fields: Any) -> Robustness.Config:
    return Robustness.Config(**{"benchmark": INNER[name], **FEW, **fields})


def probe(spread: float = 10) -> Probe:
    blobs = Blobs(4, spread)
    return make_probe(blobs.draw(96, 1), blobs.draw(40, 2), backbone=nn.Sequential(nn.Flatten()))


@pytest.mark.parametrize("name", INNER)
def test_numbers_are_those_of_the_benchmark_on_changed_test_images(name: str) -> None:
    metrics = Robustness(config(name, corruptions=[])).run(probe(spread=40))
    measured = probe(spread=40)
    benchmark: Benchmark = INNER[name].build()
    assert metrics["top1_clean"] == benchmark.run(measured)["top1"]
    test = measured.test
    assert isinstance(test, Pixels)
    turned = Pixels(np.rot90(test.images, axes=(1, 2)).copy(), test.labels, test.classes)
    expected = benchmark.run(replace(measured, test=turned, cache={}))["top1"]
    assert metrics["top1_rotation_90"] == expected
    assert expected < metrics["top1_clean"]
    assert metrics["top1"] == pytest.approx(
        (metrics["top1_rotation_90"] + metrics["top1_resolution_0.5"]) / 2
    )


def test_every_family_has_its_mean_and_every_change_its_number() -> None:
    metrics = Robustness(config()).run(probe(spread=40))
    single = [name for name in metrics if name.startswith("top1_") and name[-1].isdigit()]
    assert list(metrics)[:2] == ["top1", "top1_clean"]
    assert len(single) == 1 + 1 + 5 * 2
    assert metrics["top1"] == pytest.approx(np.mean([metrics[name] for name in single]))
    for family in ("rotation", "resolution", *CORRUPTIONS):
        own = [metrics[name] for name in single if name.startswith(f"top1_{family}_")]
        assert metrics[f"top1_{family}"] == pytest.approx(np.mean(own))
    assert metrics["top1_gaussian_noise_5"] <= metrics["top1_clean"]
    assert set(get_args(Corruption)) == set(CORRUPTIONS)


def test_training_images_are_encoded_once_and_clean() -> None:
    seen: list[Tensor] = []

    def encode(images: Tensor) -> Tensor:
        seen.append(images.clone())
        return images.flatten(1)

    blobs = Blobs(4, 40)
    measured = make_probe(blobs.draw(96, 1), blobs.draw(40, 2), encode=encode)
    Robustness(config()).run(measured)
    assert sum(map(len, seen)) == 96 + 40 * (1 + 12)
    images = torch.cat(seen)
    train = measured.train
    assert isinstance(train, Pixels)
    clean = measured.normalize(torch.from_numpy(train.images.transpose(0, 3, 1, 2).copy()))
    assert images[:96].equal(clean)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "finetune"])
def test_it_trains_once_and_tests_many_times(name: str) -> None:
    seen = {"training": 0, "all": 0}

    class Counting(nn.Flatten):
        def forward(self, images: Tensor) -> Tensor:
            seen["all"] += len(images)
            seen["training"] += len(images) if self.training else 0
            return super().forward(images)

    blobs, network = Blobs(4, 40), Counting().eval()
    measured = make_probe(blobs.draw(96, 1), blobs.draw(40, 2), encode=network, backbone=network)
    Robustness(config(name, corruptions=[])).run(measured)
    # Three epochs; the test images as they are, turned and shrunk.
    assert seen["all"] == 3 * 96 + 3 * 40
    assert seen["training"] == (3 * 96 if name == "finetune" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", INNER)
def test_no_test_image_or_label_reaches_a_classifier(name: str) -> None:
    """Trained beside a poisoned test split, it finds in the clean one what it always finds."""
    clean, benchmark = probe(spread=60), INNER[name].build()
    test = Blobs(4, 60).draw(40, 99)  # other images
    assert test.labels is not None
    test.labels = np.random.default_rng(0).permutation(test.labels)  # and wrong labels
    poisoned = replace(clean, test=test, cache={})
    expected = benchmark.run(clean)["top1"]
    assert benchmark.fitted(poisoned)(replace(clean, cache={}))["top1"] == expected > 50
    assert benchmark.fitted(clean)(poisoned)["top1"] < expected / 1.5


def test_runs_repeat_by_seed() -> None:
    noisy = config(corruptions=["gaussian_noise"], rotations=[], resolutions=[])
    measured = probe(spread=60)
    one, same = (Robustness(noisy).run(replace(measured, cache={})) for _ in range(2))
    assert one == same


def on_ranks() -> dict[str, float]:
    return Robustness(config()).run(probe(spread=40))


@pytest.mark.slow
def test_two_ranks_measure_what_one_does() -> None:
    alone = on_ranks()
    assert run_ranks(on_ranks, 2) == [alone, alone]


class Clusters(Benchmark):
    """Gives no accuracy."""

    protocol = "none"

    def run(self, probe: Probe) -> dict[str, float]:
        return {"nmi": 1.0}


def test_what_is_no_classification_is_refused() -> None:
    robustness = Robustness(config())
    robustness.inner = Clusters(None)
    with pytest.raises(ConfigError, match="knn gives no top1 but nmi"):
        robustness.run(probe())
    unlabelled = probe()
    unlabelled.test.labels = None
    with pytest.raises(DataError, match="the test split has no labels"):
        Robustness(config()).run(unlabelled)


@pytest.mark.slow
def test_the_inner_benchmark_is_chosen_like_any_other(tmp_path: Path) -> None:
    overrides = ["weights=random", "dataset=digits", "benchmark=robustness"]
    composed = compose_config("evaluate", overrides)
    chosen = build_config(EvaluateConfig, composed.data, composed.problems).benchmark
    assert chosen.fields == Robustness.Config()
    overrides += ["benchmark@benchmark.benchmark=linear", "benchmark.benchmark.augment=false"]
    composed = compose_config("evaluate", overrides)
    chosen = build_config(EvaluateConfig, composed.data, composed.problems).benchmark
    assert chosen.fields.benchmark.name == "linear" and not chosen.fields.benchmark.fields.augment
    listed = compose_config(
        "evaluate",
        [
            *overrides[:3],
            "benchmark@benchmark.benchmark=semi_supervised_1",
            "benchmark.benchmark.subset={fraction: null, list: a.txt}",
        ],
    )
    chosen = build_config(EvaluateConfig, listed.data, listed.problems).benchmark
    assert chosen.build().files == (Path("a.txt"),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resolutions": [2.0]}, r"resolutions: must be shares in \(0, 1\], got 2.0"),
        ({"severities": [0]}, "severities: must be 1 to 5, got 0"),
        ({"corruptions": ["snow"]}, r"corruptions\[0\]: got 'snow'"),
        ({"rotations": [], "resolutions": [], "severities": []}, "there is no change to measure"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(Robustness.Config, fields)


def test_a_benchmark_with_test_views_of_its_own_is_refused() -> None:
    """They would replace the changed view, and the accuracy would be that of clean images."""
    crop = Component("transform", "random_crop", RandomCrop.Config(size=SIDE))
    inner = Component("benchmark", "linear_layers", LinearLayers.Config(test_views=[crop]))
    with pytest.raises(ConfigError, match="test_views: linear_layers makes views of its own"):
        Robustness(Robustness.Config(benchmark=inner))


def test_a_benchmark_of_the_training_images_is_refused() -> None:
    inner = Component("benchmark", "knn", KNN.Config(leave_one_out=True))
    with pytest.raises(ConfigError, match="knn measures the training images here"):
        Robustness(Robustness.Config(benchmark=inner))
