from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from tests_support.command import unlabeled
from tests_support.probes import SIDE, Blobs, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config, to_data
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig, SyncBatchNormConfig
from unlabeled.data.sources.labelled_subset import LabelledSubset, choose
from unlabeled.data.transforms.center_crop import CenterCrop
from unlabeled.data.transforms.random_crop import RandomCrop
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.benchmarks.finetune import Finetune
from unlabeled.evaluation.evaluate import identity
from unlabeled.evaluation.subject import load_subject
from unlabeled.registry import Component

CONFIGS = Path(__file__).parents[3] / "configs" / "benchmark"


def config(**fields: Any) -> Finetune.Config:
    crop = Component("transform", "random_crop", RandomCrop.Config(size=SIDE, scale=(0.8, 1.0)))
    small: dict[str, Any] = {"epochs": 4, "batch_size": 20, "train_transform": crop}
    return Finetune.Config(**{**small, **fields})


def backbone() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
        )
    return layers.eval().requires_grad_(False)


def probe(spread: float = 10, classes: int = 5, seed: int = 0) -> Probe:
    blobs = Blobs(classes, spread)
    return make_probe(
        blobs.draw(120, 1),
        blobs.draw(60, 2),
        encode=backbone(),
        backbone=backbone(),
        feature_dim=8 * SIDE**2,
        seed=seed,
    )


def weights(benchmark: Finetune, measured: Probe) -> Tensor:
    """All final weights."""
    for network in benchmark.train(measured):
        last = network
    return torch.cat([p.detach().flatten().double() for p in last.state_dict().values()])


def test_separable_classes_are_all_found() -> None:
    metrics = Finetune(config()).run(probe(spread=5))
    assert metrics == {"top1": 100.0, "top1_best": 100.0, "top5": 100.0, "top5_best": 100.0}


def test_its_own_view_is_tested_and_gives_the_size_that_is_trained_on() -> None:
    view = Component("transform", "center_crop", CenterCrop.Config(size=8, resize=8))
    sizes: list[int] = []

    class Watched(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(images.shape[-1])
            return functional.adaptive_avg_pool2d(images, 2).flatten(1)

    measured = replace(probe(), backbone=Watched(), feature_dim=12)
    for chosen, expected in ((view, {8}), (None, {SIDE})):
        Finetune(config(epochs=1, train_transform=None, view=chosen)).run(measured)
        assert set(sizes) == expected
        sizes.clear()


@pytest.mark.slow
def test_last_and_best_are_of_one_epoch_each() -> None:
    benchmark = Finetune(config(epochs=8, lr=0.2, head_lr=1.0, decay_epochs=[]))
    noisy = probe(spread=150, classes=8)
    assert noisy.test.labels is not None
    images = torch.from_numpy(noisy.test.images.transpose(0, 3, 1, 2).copy())  # type: ignore[attr-defined]
    history = []
    for network in benchmark.train(noisy):
        with torch.no_grad():
            ranked = network(noisy.normalize(images)).argsort(dim=1, descending=True).numpy()
        right = ranked == noisy.test.labels[:, None]
        history.append((100 * right[:, 0].mean(), 100 * right[:, :5].any(axis=1).mean()))
    top1 = [one for one, _ in history]
    assert top1[-1] < max(top1) < 90
    best = history[top1.index(max(top1))]
    expected = {"top1": history[-1][0], "top1_best": best[0]}
    expected |= {"top5": history[-1][1], "top5_best": best[1]}
    assert benchmark.run(noisy) == pytest.approx(expected)


@pytest.mark.slow
def test_the_test_split_reaches_no_weight() -> None:
    benchmark = Finetune(config(subset=LabelledSubset(fraction=0.5)))
    measured = probe(spread=60)
    test = Blobs(5, 60).draw(60, 99)  # other images
    assert test.labels is not None
    test.labels = np.random.default_rng(0).permutation(test.labels)  # and wrong labels
    poisoned = replace(probe(spread=60), test=test)
    assert weights(benchmark, measured).equal(weights(benchmark, poisoned))
    assert benchmark.run(measured)["top1"] > 1.5 * benchmark.run(poisoned)["top1"]


def test_only_the_chosen_labels_and_images_reach_the_weights() -> None:
    benchmark = Finetune(config(subset=LabelledSubset(per_class=6), batch_size=30))
    measured = probe(spread=60)
    chosen = choose(measured.train, LabelledSubset(per_class=6), measured.seed)
    expected = weights(benchmark, measured)
    others = np.setdiff1d(np.arange(120), chosen)
    spoilt = probe(spread=60)
    spoilt.train.images[others] = 0  # type: ignore[attr-defined]
    assert weights(benchmark, spoilt).equal(expected)
    spoilt.train.images[chosen[0]] = 0  # type: ignore[attr-defined]
    assert not weights(benchmark, spoilt).equal(expected)


def test_the_choice_is_logged_and_follows_the_seed(caplog: pytest.LogCaptureFixture) -> None:
    subset = LabelledSubset(per_class=2)
    lines = []
    for seed in (0, 0, 1):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            labelled = Finetune(config(subset=subset)).labelled(probe(seed=seed))
        names = [labelled.name(index) for index in range(len(labelled))]
        assert len(names) == 10 and f"on 10 of 120 images: {', '.join(names)}" in caplog.text
        assert labelled.labels is not None
        assert np.bincount(labelled.labels).tolist() == [2] * 5
        lines.append(caplog.text)
    assert lines[0] == lines[1] != lines[2]


def test_a_class_without_an_image_is_refused() -> None:
    with pytest.raises(DataError, match="classes without one"):
        Finetune(config(subset=LabelledSubset(fraction=0.01))).run(probe())


def on_ranks() -> tuple[dict[str, float], Tensor]:
    benchmark = Finetune(config(subset=LabelledSubset(per_class=8)))
    measured = probe(spread=60)
    return benchmark.run(measured), weights(benchmark, measured)


@pytest.mark.slow
def test_two_ranks_measure_what_one_does() -> None:
    metrics, trained = on_ranks()
    for found, same in run_ranks(on_ranks, 2):
        assert found == pytest.approx(metrics, abs=100 / 60 + 1e-6)  # one image on the brink
        torch.testing.assert_close(same, trained, atol=2e-5, rtol=1e-3)


def own_statistics() -> Tensor:
    alone = SyncBatchNormConfig(enabled=False, group_size=None)
    return weights(Finetune(config(epochs=1, sync_batch_norm=alone)), probe(spread=60))


@pytest.mark.slow
def test_one_network_is_measured_where_ranks_have_statistics_of_their_own() -> None:
    first, second = run_ranks(own_statistics, 2)
    assert torch.equal(first, second)


def test_cosine_falls_in_both_parts_alike() -> None:
    cosine = config(schedule="cosine", epochs=4, lr=0.4, head_lr=8.0)
    expected = [(0.4 * share, 8.0 * share) for share in (1, 0.8535534, 0.5, 0.1464466)]
    for epoch, rates in enumerate(expected):
        assert cosine.learning_rates(epoch) == pytest.approx(rates)


def test_the_yaml_file_spells_out_the_defaults() -> None:
    data = yaml.safe_load((CONFIGS / "finetune.yaml").read_text())
    assert data.pop("name") == "finetune"
    assert to_data(build_config(Finetune.Config, data)) == to_data(Finetune.Config()) == data


def evaluated(*overrides: str) -> EvaluateConfig:
    composed = compose_config(
        "evaluate", ["weights=random", "backbone=raw_pixels", "backbone.image_size=8", *overrides]
    )
    return build_config(EvaluateConfig, composed.data, composed.problems)


@pytest.mark.slow
def test_the_contents_of_the_list_belong_to_the_identity(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    overrides = ["dataset=digits", "benchmark=semi_supervised_10"]
    by_share = evaluated(*overrides)
    by_list = evaluated(
        *overrides, "benchmark.subset.fraction=null", f"benchmark.subset.list={listing}"
    )
    subject = load_subject(by_share)
    with pytest.raises(DataError, match=r"cannot read .*list.txt"):
        identity(by_list, subject)
    found = {identity(by_share, subject)}
    for text in ("a.jpg\n", "b.jpg\n", "a.jpg\n"):
        listing.write_text(text)
        found.add(identity(by_list, subject))
    assert len(found) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs: must be positive, got 0"),
        ({"head_lr": 0.0}, r"head_lr: must be positive, got 0\.0"),
        ({"momentum": 1.0}, r"momentum: must be in \[0, 1\), got 1\.0"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov: needs momentum"),
        ({"weight_decay": -1e-6}, "weight_decay: must be 0 or more"),
        ({"lr_reference_batch_size": 0}, "lr_reference_batch_size: must be at least 1 or null"),
        ({"train_transform": {"name": "multi_crop"}}, "must emit one view, not 8"),
        ({"train_transform": {"name": "grayscale"}}, "'grayscale' makes no view by itself"),
        ({"view": {"name": "multi_crop"}}, "view: must emit one view, not 8"),
        ({"subset": {"fraction": 0.1, "per_class": 3}}, "subset.fraction: give one of"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(Finetune.Config, fields)


@pytest.mark.slow
def test_the_command_fine_tunes_on_two_processes(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    crop = "{name: random_crop, size: 8, scale: [0.6, 1.0], flip_p: 0.0}"
    result = unlabeled(
        *("evaluate", "weights=random", "dataset=digits", "benchmark=semi_supervised_10"),
        *("backbone=resnet18_stage1", "backbone.width=0.25", f"benchmark.train_transform={crop}"),
        *("transform@eval_transform=center_crop_small", "eval_transform.size=8"),
        *("benchmark.lr=0.1", "benchmark.head_lr=0.1", "benchmark.batch_size=26"),
        *("benchmark.epochs=8", "loader.workers=0", "device=cpu", "threads=1"),
        *("launch.processes=2", f"out={out}"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(out.read_text())
    assert "10% of the labels" in found["protocol"]
    assert "fine-tuning on 135 of 1347 images: digits/train/" in result.stdout
    assert found["metrics"]["top1_best"] >= found["metrics"]["top1"] > 40  # chance is 10
