"""One pass over 10^9 images: what the recipes of SEER's kind share, and in what they differ."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.derived import derive_lengths
from unlabeled.config.schema import PretrainConfig

BILLION = 10**9
BATCH, STEPS, WARMUP = 8704, 114_890, 8000
BACKBONES = {"r50": 2048, "rx101_32x8d": 2048, "rg128": 7392, "rg256": 10444}
"""Of every recipe the width of its features."""
LARGE = ("rg128", "rg256")
RECIPES = [(method, short) for method in ("swav", "simclr") for short in BACKBONES]


@cache
def recipe(method: str, short: str) -> PretrainConfig:
    overrides = [f"experiment={method}/{short}_ig1b", "dataset.root=/data/index"]
    composed = compose_config("pretrain", overrides)
    return build_config(PretrainConfig, composed.data, composed.problems)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "short"), RECIPES)
def test_a_pass_is_the_published_number_of_steps(method: str, short: str) -> None:
    config = recipe(method, short)
    lengths = derive_lengths(config, BILLION)
    assert (config.batch_size, lengths.total_steps) == (BATCH, STEPS)
    assert (config.epochs, config.samples) == (None, BILLION)
    schedule = config.scheduler.build(
        total_steps=STEPS, steps_per_epoch=lengths.steps_per_epoch, batch_size=BATCH
    )
    rates = [schedule(step) for step in (WARMUP - 2, WARMUP - 1, WARMUP, WARMUP + 500)]
    assert rates[1] == rates[2] == pytest.approx(0.3 * BATCH / 256)
    assert rates[0] < rates[1] > rates[3]
    assert BATCH % (64 * 8) == 0  # as many GPUs as the source had
    assert 64 * 8 % (config.sync_batch_norm.group_size or 1) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("method", "short"), RECIPES)
def test_the_head_is_seer_s(method: str, short: str) -> None:
    config = recipe(method, short)
    with torch.device("meta"):
        backbone = config.backbone.build()
        head = config.head.build(feature_dim=backbone.feature_dim, num_classes=0)
    assert backbone.feature_dim == BACKBONES[short]
    widths = [
        (layer.in_features, layer.out_features)
        for layer in head.modules()
        if isinstance(layer, nn.Linear)
    ]
    mlp = [(BACKBONES[short], 8192), (8192, 8192), (8192, 256)]
    assert widths == [*mlp, *([(256, 16_000)] if method == "swav" else [])]
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in head.modules())
    assert config.loss.fields.temperature == 0.1
    if method == "swav":
        assert config.assigner is not None
        fields = config.assigner.fields
        assert (fields.epsilon, fields.iterations, fields.hard) == (0.03, 10, False)
        # An epoch of such a run is the whole of it: prototypes frozen that long would never move.
        assert config.method.fields.freeze_prototypes_steps == 313


@pytest.mark.slow
@pytest.mark.parametrize(("method", "short"), RECIPES)
def test_views_are_those_of_the_large_models(method: str, short: str) -> None:
    crops = recipe(method, short).transform.fields.crops
    found = [(c.count, c.size, c.scale) for c in crops]
    assert found == [(2, 160, (0.14, 1.0)), (4, 96, (0.05, 0.14))]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "short"), RECIPES)
def test_what_does_not_fit_one_gpu_is_divided_and_computed_again(method: str, short: str) -> None:
    config = recipe(method, short)
    expected = ("fsdp", "stage", 1e-5) if short in LARGE else ("none", "none", 1e-6)
    decay = config.optimizer.fields.weight_decay
    assert (config.sharding, config.activation_checkpointing, decay) == expected
    assert config.precision == "fp16"
    assert config.optimizer.name == "larc"


@pytest.mark.slow
@pytest.mark.parametrize("short", BACKBONES)
def test_the_two_methods_see_the_same(short: str) -> None:
    swav, simclr = recipe("swav", short), recipe("simclr", short)
    same = ("run", "method", "head", "loss", "assigner", "scheduler")
    assert replace(simclr, **{name: getattr(swav, name) for name in same}) == swav
    start = {"warmup_start_lr": 0.3, "final_lr": swav.scheduler.fields.final_lr}
    assert replace(simclr.scheduler.fields, **start) == swav.scheduler.fields
