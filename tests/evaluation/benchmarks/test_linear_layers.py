from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests_support.probes import SIDE, Blobs, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig
from unlabeled.data.transforms.fixed_crop import FixedCrop
from unlabeled.data.transforms.random_crop import RandomCrop
from unlabeled.errors import ConfigError, DataError, DivergenceError
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.benchmarks.linear_layers import LinearLayers
from unlabeled.evaluation.evaluate import evaluate
from unlabeled.evaluation.layer_heads import Head
from unlabeled.evaluation.layers import Layer
from unlabeled.registry import Component

WIDE = Layer(module="stem", pool=2, batch_norm=True)
PLAIN = Layer(module="pixels", pool=4, batch_norm=False)
DEEP = Layer(module="stage", pool=(2, 1, 0), batch_norm=True)
LAYERS: dict[str, Layer | None] = {"wide": WIDE, "plain": PLAIN, "deep": DEEP}  # plain runs first


class Net(nn.Module):
    """A convolutional network for images of 4 x 4, always the same."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.pixels = nn.Identity()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.stage = nn.Conv2d(8, 6, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.3, generator=generator)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.stage(self.act(self.stem(self.pixels(images))))
        return features.mean(dim=(2, 3))


def config(**fields: Any) -> LinearLayers.Config:
    crop = Component("transform", "random_crop", RandomCrop.Config(size=SIDE, scale=(0.8, 1.0)))
    small: dict[str, Any] = {
        "layers": LAYERS,
        "epochs": 4,
        "batch_size": 32,
        "lr": 0.3,
        "decay_epochs": [2, 3],
        "train_transform": crop,
    }
    return LinearLayers.Config(**{**small, **fields})


def probe(spread: float = 60, classes: int = 5, seed: int = 0) -> Probe:
    blobs = Blobs(classes, spread)
    with torch.random.fork_rng():  # layers are made with random weights, which Net overwrites
        net = Net()
    return make_probe(
        blobs.draw(120, 1),
        blobs.draw(60, 2),
        encode=net,
        backbone=net,
        feature_dim=6,
        seed=seed,
    )


def trained(benchmark: LinearLayers, measured: Probe) -> dict[str, dict[str, Tensor]]:
    """The final classifiers."""
    taps = benchmark.taps(measured, measured.pipeline)
    maps = replace(measured, encode=taps, feature_dim=taps.feature_dim, cache={})
    for heads in benchmark.train(maps, taps):
        last = heads
    return {
        key: {name: tensor.clone() for name, tensor in head.state_dict().items()}
        for key, head in last.items()
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize("augment", [False, True])
def test_all_in_one_pass_are_what_each_would_be_alone(augment: bool) -> None:
    together = trained(LinearLayers(config(augment=augment)), probe())
    assert set(together) == set(LAYERS)
    for key, layer in LAYERS.items():
        alone = trained(LinearLayers(config(augment=augment, layers={key: layer})), probe())
        assert alone.keys() == {key}
        for name, tensor in alone[key].items():
            torch.testing.assert_close(together[key][name], tensor, atol=1e-5, rtol=0)


def test_training_and_scores_are_those_of_a_loop_by_hand() -> None:
    settings = config(augment=False, batch_size=120, lr_reference_batch_size=120)
    measured = probe()
    metrics = LinearLayers(settings).run(measured)
    train, test = (
        torch.from_numpy(source.images).permute(0, 3, 1, 2).double() / 127.5 - 1
        for source in (measured.train, measured.test)
    )
    net, labels = Net().double(), torch.from_numpy(measured.train.labels)
    for key, pool in (("wide", nn.AdaptiveAvgPool2d(2)), ("plain", nn.Identity())):
        module = net.stem if key == "wide" else net.pixels
        rows, unseen = pool(module(train)), pool(module(test))
        start = Head(tuple(rows.shape[1:]), 5, key == "wide", seed=0).double()
        weight, bias = start.linear.weight.detach(), start.linear.bias.detach()
        gain, shift = torch.ones(rows.shape[1]).double(), torch.zeros(rows.shape[1]).double()
        values = [weight, bias, gain, shift]
        velocity = [torch.zeros_like(value) for value in values]
        running = [torch.zeros(rows.shape[1]).double(), torch.ones(rows.shape[1]).double()]
        axes = (0, 2, 3)
        history = []
        for epoch in range(4):
            mean, var = rows.mean(axes), rows.var(axes, correction=0)
            leaves = [value.requires_grad_(True) for value in values]

            def scores(maps: Tensor, mean: Tensor, var: Tensor) -> Tensor:
                if key == "wide":  # noqa: B023 - called within the iteration
                    scale = (maps - mean[:, None, None]) / (var + 1e-5).sqrt()[:, None, None]
                    maps = scale * values[2][:, None, None] + values[3][:, None, None]  # noqa: B023
                return maps.flatten(1) @ values[0].T + values[1]  # noqa: B023

            loss = nn.functional.cross_entropy(scores(rows, mean, var), labels)
            slopes = torch.autograd.grad(loss, leaves, allow_unused=True)
            rate = 0.3 * 0.1 ** sum(epoch >= reached for reached in (2, 3))
            for place, (value, slope) in enumerate(zip(values, slopes, strict=True)):
                if slope is None:
                    continue
                slope = slope + (5e-4 * value.detach() if place < 2 else 0)  # not for batch norm
                velocity[place] = 0.9 * velocity[place] + slope
                values[place] = value.detach() - rate * (slope + 0.9 * velocity[place])  # Nesterov
            values = [value.detach() for value in values]
            unbiased = rows.var(axes, correction=1)
            running = [0.9 * running[0] + 0.1 * mean, 0.9 * running[1] + 0.1 * unbiased]
            predicted = scores(unseen, *running).argmax(dim=1).numpy()
            history.append(100 * float((predicted == measured.test.labels).mean()))
        assert metrics[f"top1_{key}"] == pytest.approx(history[-1])
        assert metrics[f"top1_best_{key}"] == pytest.approx(max(history))
        found = trained(LinearLayers(settings), measured)[key]
        torch.testing.assert_close(found["linear.weight"].double(), values[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(found["linear.bias"].double(), values[1], atol=1e-5, rtol=0)
        if key == "wide":
            torch.testing.assert_close(found["norm.weight"].double(), values[2], atol=1e-5, rtol=0)


def test_the_main_number_is_of_the_layer_that_is_best_after_the_last_epoch() -> None:
    benchmark = LinearLayers(config(augment=False, epochs=6, lr=3.0, decay_epochs=[]))
    metrics = benchmark.run(probe(spread=150, classes=8))
    expected = [f"{kind}_{key}" for key in LAYERS for kind in ("top1", "top1_best", "top5")]
    assert list(metrics) == ["top1", *expected]
    assert metrics["top1"] == max(metrics[f"top1_{key}"] for key in LAYERS)
    assert len({metrics[f"top1_{key}"] for key in LAYERS}) > 1
    assert any(metrics[f"top1_best_{key}"] > metrics[f"top1_{key}"] for key in LAYERS)
    for key in LAYERS:
        assert metrics[f"top1_{key}"] < metrics[f"top5_{key}"]
    assert (
        "best on the test split" in benchmark.protocol and "3 frozen layers" in benchmark.protocol
    )
    without = LinearLayers(config(augment=False, layers={**LAYERS, "wide": None}))
    assert "top1_wide" not in without.run(probe())


@pytest.mark.slow
@pytest.mark.parametrize("augment", [False, True])
def test_the_test_split_reaches_no_weight(augment: bool) -> None:
    benchmark = LinearLayers(config(augment=augment))
    test = Blobs(5, 60).draw(60, 99)
    assert test.labels is not None
    test.labels = (test.labels + 1) % 5
    measured = probe(spread=20)
    poisoned = replace(probe(spread=20), test=test)
    clean, found = trained(benchmark, measured), trained(benchmark, poisoned)
    assert all(same(clean[key], found[key]) for key in LAYERS)
    assert benchmark.run(measured)["top1"] > 1.5 * benchmark.run(poisoned)["top1"]
    assert measured.train.labels is not None
    measured.train.labels = np.roll(measured.train.labels, 1)
    assert not same(trained(benchmark, measured)["wide"], clean["wide"])


def test_runs_repeat_by_seed_and_leave_the_rest_alone() -> None:
    benchmark, measured = LinearLayers(config(epochs=1)), probe()
    weights = Net().state_dict()
    state = torch.get_rng_state()
    one, again = trained(benchmark, measured), trained(benchmark, probe())
    other = trained(benchmark, probe(seed=1))
    assert torch.get_rng_state().equal(state)
    assert same(dict(measured.backbone.state_dict()), dict(weights))
    assert not measured.cache  # its features are no other benchmark's
    assert same(one["deep"], again["deep"]) and not same(one["deep"], other["deep"])


def on_ranks(augment: bool) -> tuple[dict[str, float], dict[str, dict[str, Tensor]]]:
    benchmark = LinearLayers(config(augment=augment, epochs=2))
    return benchmark.run(probe()), trained(benchmark, probe())


@pytest.mark.slow
@pytest.mark.parametrize("augment", [False, True])
def test_two_ranks_train_what_one_does(augment: bool) -> None:
    metrics, heads = on_ranks(augment)
    for found, others in run_ranks(on_ranks, 2, augment):
        assert found == metrics
        for key, head in heads.items():
            for name, tensor in head.items():
                torch.testing.assert_close(others[key][name], tensor, atol=1e-6, rtol=0)


CROPS = [
    Component("transform", "fixed_crop", FixedCrop.Config(size=SIDE, resize=SIDE, mirrored=each))
    for each in (False, True)
]


@pytest.mark.slow
def test_test_views_are_averaged_after_the_last_epoch() -> None:
    settings = config(augment=False, test_views=CROPS)
    benchmark, measured = LinearLayers(settings), probe(spread=150, classes=8)
    metrics = benchmark.run(measured)
    taps = benchmark.taps(measured, measured.pipeline)
    heads = trained(benchmark, measured)
    images = torch.from_numpy(measured.test.images).permute(0, 3, 1, 2)
    labels, best = torch.from_numpy(measured.test.labels), []
    for key, layer in LAYERS.items():
        head = Head(taps.shapes[key], 8, layer.batch_norm, seed=0).eval()
        head.load_state_dict(heads[key])
        views = (measured.normalize(view) for view in (images, images.flip(3)))
        with torch.no_grad():
            scores = sum(head(taps.split(taps(view))[key]).softmax(dim=1) for view in views)
        expected = 100 * float((scores.argmax(dim=1) == labels).double().mean())
        best.append(expected)
        assert metrics[f"top1_averaged_{key}"] == pytest.approx(expected)
        assert metrics[f"top5_averaged_{key}"] > expected
    assert metrics["top1"] == pytest.approx(max(best))
    # What is trained, and measured of the evaluation view, does not depend on them.
    plain = LinearLayers(config(augment=False)).run(probe(spread=150, classes=8))
    assert {key: metrics[key] for key in plain if key != "top1"} == {
        key: plain[key] for key in plain if key != "top1"
    }
    assert any(metrics[f"top1_averaged_{key}"] != metrics[f"top1_{key}"] for key in LAYERS)
    assert benchmark.fitted(measured)(measured)["top1"] == metrics["top1"]
    assert "mean probabilities of 2 views" in benchmark.protocol


def test_test_views_of_another_size_are_refused() -> None:
    large = Component("transform", "fixed_crop", FixedCrop.Config(size=6, resize=6))
    with pytest.raises(ConfigError, match="test_views: of views of 6 px pooling leaves"):
        LinearLayers(config(augment=False, epochs=1, test_views=[large])).run(probe())


def test_the_rate_falls_with_every_step() -> None:
    """Large enough a decay, and training by the official schedule is another."""
    decaying = config(augment=False, lr=0.1, weight_decay=0.5, schedule="inverse_root")
    assert decaying.step_rate(0) == decaying.learning_rate(3) == 0.1 * 32 / 256
    assert decaying.step_rate(160) == pytest.approx(0.0125 / 2**0.5)  # 0.0125 x 0.5 x 160 = 1
    constant = replace(decaying, schedule="step", decay_epochs=[])
    one, other = (trained(LinearLayers(each), probe())["deep"] for each in (decaying, constant))
    assert not same(one, other)
    # 16 steps take the rate down by 5 %.
    torch.testing.assert_close(one["linear.weight"], other["linear.weight"], atol=0.02, rtol=0)


def test_a_remainder_of_one_image_and_a_set_of_one() -> None:
    measured = probe()
    metrics = LinearLayers(config(augment=False, batch_size=7)).run(measured)  # 120 = 17 x 7 + 1
    assert metrics["top1"] > 30
    lonely = replace(measured, train=Blobs(5, 60).draw(1, 1))
    with pytest.raises(DataError, match="one training image has no batch statistics"):
        LinearLayers(config()).run(lonely)


def test_training_views_of_another_size_need_pooling_to_a_side() -> None:
    crop = Component("transform", "random_crop", RandomCrop.Config(size=6))
    with pytest.raises(ConfigError, match=r"layers\.deep\.pool: leaves \[6, 4, 4\] of the"):
        LinearLayers(config(train_transform=crop)).run(probe())
    sides = {"wide": WIDE, "deep": replace(DEEP, pool=2)}
    metrics = LinearLayers(config(train_transform=crop, layers=sides)).run(probe())
    assert metrics["top1"] > 30


def test_weights_begin_as_swav_or_as_torch_has_them() -> None:
    wide = (2048, 1, 1)
    normal, uniform = (
        Head(wide, 50, False, seed=0, initial=i).linear for i in ("normal", "uniform")
    )  # type: ignore[arg-type]
    assert float(normal.weight.detach().std()) == pytest.approx(0.01, rel=0.01)
    assert not normal.bias.any() and uniform.bias.all()
    assert float(uniform.weight.detach().abs().max()) == pytest.approx(2048**-0.5, rel=0.01)
    again = Head(wide, 50, False, seed=1, initial="normal").linear
    assert not again.weight.equal(normal.weight)


def test_divergence_is_named() -> None:
    loud = replace(probe(), normalize=lambda images: images.float() * 1e30)
    benchmark = LinearLayers(config(augment=False, layers={"plain": PLAIN}, lr=10.0))
    with pytest.raises(DivergenceError, match="give every layer batch_norm=true"):
        benchmark.run(loud)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": {}}, "layers: needs at least one layer"),
        ({"layers": {"a": {"module": "x", "pool": 0, "batch_norm": True}}}, r"layers\.a\.pool"),
        ({"batch_size": 1}, "batch_size: must be at least 2 for statistics, got 1"),
        ({"momentum": 0.0}, "nesterov: needs momentum > 0, got momentum 0"),
        ({"lr": 0.0}, "lr: must be positive"),
        ({"weight_decay": -1.0}, "weight_decay: must be 0 or more"),
        ({"train_transform": {"name": "multi_crop"}}, "must emit one view, not 8"),
        ({"test_views": [{"name": "multi_crop"}]}, "test_views: must emit one view, not 8"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(LinearLayers.Config, fields)


@pytest.mark.slow
def test_layers_of_a_resnet_on_photographs(tmp_path: Path) -> None:
    out = tmp_path / "layers.json"
    choices = (
        "weights=random benchmark=linear_layers_small backbone=resnet18_small backbone.width=0.125 "
        "dataset=photo_patches dataset.train_per_picture=40 dataset.test_per_picture=20 "
        "transform@eval_transform=center_crop_small benchmark.epochs=6 benchmark.batch_size=64 "
        "benchmark.decay_epochs=[4,5] benchmark.lr=0.1 loader.workers=0 device=cpu"
    )
    composed = compose_config("evaluate", [*choices.split(), f"out={out}"])
    config = build_config(EvaluateConfig, composed.data, composed.problems)
    evaluate(config, torch.device("cpu"))
    metrics = json.loads(out.read_text())["metrics"]
    assert metrics["top1_conv1"] > 20  # chance is 5
    assert len([name for name in metrics if name.startswith("top1_best_")]) == 7
