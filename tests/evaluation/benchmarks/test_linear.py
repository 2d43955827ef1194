from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from tests_support.probes import SIDE, Blobs, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config, to_data
from unlabeled.data.transforms.random_crop import RandomCrop
from unlabeled.errors import ConfigError, DivergenceError
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.benchmarks.linear import Linear
from unlabeled.evaluation.benchmarks.robustness import Robustness
from unlabeled.models.backbones.vit import ViT
from unlabeled.registry import Component

CONFIGS = Path(__file__).parents[3] / "configs" / "benchmark"


def config(**fields: Any) -> Linear.Config:
    crop = Component("transform", "random_crop", RandomCrop.Config(size=SIDE, scale=(0.8, 1.0)))
    small: dict[str, Any] = {"epochs": 10, "batch_size": 32, "train_transform": crop}
    return Linear.Config(**{**small, **fields})


def probe(spread: float = 10, classes: int = 5, seed: int = 0) -> Probe:
    blobs = Blobs(classes, spread)
    return make_probe(blobs.draw(120, 1), blobs.draw(60, 2), seed=seed)


def weights(benchmark: Linear, measured: Probe) -> Tensor:
    """The final classifier, as one matrix."""
    for classifier in benchmark.train(measured, benchmark._scaling(measured)):
        last = classifier
    return torch.cat([last.weight, last.bias.unsqueeze(1)], dim=1).detach()


@pytest.mark.parametrize("augment", [False, True])
def test_separable_classes_are_all_found(augment: bool) -> None:
    metrics = Linear(config(augment=augment)).run(probe(spread=5))
    assert metrics == {"top1": 100.0, "top1_best": 100.0, "top5": 100.0}


def test_top1_is_of_the_last_epoch_and_best_of_the_best() -> None:
    # A rate that does not decay on overlapping classes makes the accuracy go up and down.
    benchmark = Linear(config(augment=False, schedule="step", lr=3.0, batch_size=16))
    noisy = probe(spread=150, classes=8)
    test = noisy.features("test")
    assert test.labels is not None
    history = [
        100 * float((classifier(test.features).argmax(dim=1) == test.labels).float().mean())
        for classifier in benchmark.train(noisy, lambda features: features)
    ]
    assert history[-1] < max(history) < 90
    metrics = benchmark.run(noisy)
    assert metrics["top1"] == pytest.approx(history[-1])
    assert metrics["top1_best"] == pytest.approx(max(history))
    assert metrics["top5"] > metrics["top1"]


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("scaling", ["none", "standardize"])
def test_the_test_split_reaches_no_weight(augment: bool, scaling: str) -> None:
    benchmark = Linear(config(augment=augment, normalize_features=scaling, epochs=3))
    measured, poisoned = probe(spread=60), probe(spread=60)
    test = Blobs(5, 60).draw(60, 99)  # other images
    assert test.labels is not None
    test.labels = np.random.default_rng(0).permutation(test.labels)  # and wrong labels
    poisoned = replace(poisoned, test=test)
    assert weights(benchmark, measured).equal(weights(benchmark, poisoned))
    assert benchmark.run(measured)["top1"] > 1.5 * benchmark.run(poisoned)["top1"]
    # The training labels do reach them.
    assert measured.train.labels is not None
    measured.train.labels = np.roll(measured.train.labels, 1)
    measured.cache.clear()
    assert not weights(benchmark, measured).equal(weights(benchmark, poisoned))


@pytest.mark.parametrize("augment", [False, True])
def test_runs_repeat_by_seed_and_leave_global_randomness_alone(augment: bool) -> None:
    benchmark = Linear(config(augment=augment, epochs=2))
    state = torch.get_rng_state()
    one, same, other = (weights(benchmark, probe(seed=seed)) for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(state)
    assert one.equal(same) and not one.equal(other)


def test_standardised_features_have_the_statistics_of_training_and_any_scale_is_the_same() -> None:
    benchmark = Linear(config(augment=False, normalize_features="standardize"))
    plain = probe(spread=60)
    scaled = benchmark._scaling(plain)(plain.features("train").features)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(48), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(dim=0, correction=0), torch.ones(48))

    def huge(images: Tensor) -> Tensor:
        return images.flatten(1).mul(1e6).add(1e5)

    loud = replace(plain, encode=huge, cache={})
    assert benchmark.run(loud) == pytest.approx(benchmark.run(plain), abs=2)
    far = replace(plain, encode=lambda images: images.flatten(1) + 100, cache={})
    assert benchmark.run(far)["top1"] > 95  # only if test features move like training features
    constant = replace(plain, encode=lambda images: torch.ones(len(images), 48), cache={})
    assert 10 < benchmark.run(constant)["top1"] < 40  # one class for all, and no division by zero


def test_features_of_absurd_scale_diverge_with_advice() -> None:
    def absurd(images: Tensor) -> Tensor:
        return images.flatten(1) * 1e25

    with pytest.raises(DivergenceError, match="standardize"):
        Linear(config(augment=False)).run(replace(probe(), encode=absurd))


def vit_probe() -> Probe:
    """Separable classes before an untrained vision transformer, two patches high and wide."""
    backbone = ViT(ViT.Config(width=8, depth=3, heads=2, patch=2, image_size=SIDE))
    backbone.eval().requires_grad_(False)
    return replace(probe(spread=20), encode=backbone, backbone=backbone, feature_dim=8)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("features", ["cls", "cls_and_mean_patch"])
def test_a_classifier_of_tokens_is_one_of_the_features_that_they_make(
    features: str, augment: bool
) -> None:
    measured = vit_probe()
    backbone = measured.backbone
    assert isinstance(backbone, ViT)

    def by_hand(images: Tensor) -> Tensor:
        before, last = backbone.tokens(images, 2)
        if features == "cls":
            return torch.cat([before[:, 0], last[:, 0]], dim=1)
        pair = torch.cat([last[:, :1], last[:, 1:].mean(dim=1, keepdim=True)], dim=1)
        return pair.transpose(1, 2).flatten(1)

    blocks = 2 if features == "cls" else 1
    chosen = config(features=features, last_blocks=blocks, augment=augment, epochs=3, lr=1.0)
    plain = replace(chosen, features="output", last_blocks=1)
    same = replace(measured, encode=by_hand, feature_dim=16, cache={})
    assert Linear(chosen).run(measured) == Linear(plain).run(same)
    described = Linear(chosen).described(measured)
    torch.testing.assert_close(weights(Linear(chosen), described), weights(Linear(plain), same))
    assert "tokens" in Linear(chosen).protocol and "tokens" not in Linear(plain).protocol


def test_what_measures_a_classifier_of_tokens_for_others_reads_tokens_too() -> None:
    measured = vit_probe()
    chosen = config(features="cls", last_blocks=2, augment=False, epochs=3, lr=1.0)

    def clean(linear: Linear.Config) -> float:
        sweep = Robustness.Config(
            benchmark=Component("benchmark", "linear", linear),
            rotations=[180.0],
            resolutions=[],
            corruptions=[],
        )
        return Robustness(sweep).run(measured)["top1_clean"]

    assert clean(chosen) == Linear(chosen).run(measured)["top1"]
    assert clean(chosen) != clean(replace(chosen, features="output", last_blocks=1))


def test_tokens_of_a_backbone_without_any_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.features: .*\(Flatten\) has no CLS"):
        Linear(config(features="cls")).run(probe())
    with pytest.raises(ConfigError, match=r"has 3 blocks.*take 1 to 3"):
        Linear(config(features="cls", last_blocks=4)).run(vit_probe())


def on_ranks(augment: bool) -> tuple[dict[str, float], Tensor]:
    benchmark = Linear(config(augment=augment, epochs=2))
    measured = probe(spread=60)
    return benchmark.run(measured), weights(benchmark, measured)


@pytest.mark.slow
@pytest.mark.parametrize("augment", [False, True])
def test_two_ranks_train_what_one_does(augment: bool) -> None:
    metrics, classifier = on_ranks(augment)
    for found, same in run_ranks(on_ranks, 2, augment):
        assert found == metrics
        assert same.equal(classifier)


def test_the_rate_follows_the_reference_batch_size() -> None:
    assert config(batch_size=512).learning_rate(0) == 0.3
    assert config(batch_size=512, lr_reference_batch_size=256).learning_rate(0) == 0.6
    steps = config(schedule="step", decay_epochs=[2, 4], decay_factor=0.5)
    assert [steps.learning_rate(epoch) for epoch in range(5)] == [0.3, 0.3, 0.15, 0.15, 0.075]


def test_the_yaml_file_spells_out_the_defaults() -> None:
    data = yaml.safe_load((CONFIGS / "linear.yaml").read_text())
    assert data.pop("name") == "linear"
    assert to_data(build_config(Linear.Config, data)) == to_data(Linear.Config()) == data


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs: must be positive, got 0"),
        ({"lr": -1.0}, r"lr: must be positive, got -1\.0"),
        ({"momentum": 1.0}, r"momentum: must be in \[0, 1\), got 1\.0"),
        ({"weight_decay": -1e-6}, "weight_decay: must be 0 or more"),
        ({"features": "cls", "last_blocks": 0}, "last_blocks: must be 1 or more, got 0"),
        ({"last_blocks": 4}, "last_blocks: 4 blocks are read by features=cls alone"),
        ({"schedule": "cosinus"}, "schedule: got 'cosinus'.*Did you mean 'cosine'"),
        ({"train_transform": {"name": "grayscale"}}, "'grayscale' makes no view by itself"),
        ({"train_transform": {"name": "multi_crop"}}, "must emit one view, not 8"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(Linear.Config, fields)
