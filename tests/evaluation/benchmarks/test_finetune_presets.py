"""The presets of fine-tuning hold the numbers of the papers and of the official code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from unlabeled.config.check import build_config
from unlabeled.data.sources.labelled_subset import LabelledSubset
from unlabeled.evaluation.benchmarks.finetune import Finetune

CONFIGS = Path(__file__).parents[3] / "configs" / "benchmark"
GOLDEN = Path(__file__).parents[2] / "data" / "swav_eval_lrs.npz"
PRESETS = ("semi_supervised_1", "semi_supervised_10", "low_shot_13", "low_shot_128")
PRESETS += ("finetune_imagenet", "finetune_384")


def typed(preset: str) -> Finetune.Config:
    data = yaml.safe_load((CONFIGS / f"{preset}.yaml").read_text())
    assert data.pop("name") == "finetune"
    return build_config(Finetune.Config, data)


@pytest.mark.parametrize("percent", [1, 10])
def test_the_rates_of_few_labels_are_the_official_ones(percent: int) -> None:
    golden = np.load(GOLDEN)
    preset = typed(f"semi_supervised_{percent}")
    assert preset.epochs == 20 and preset.batch_size == 256
    rates = [preset.learning_rates(epoch) for epoch in range(20)]
    np.testing.assert_allclose(rates, golden[f"semisup_p{percent}"], rtol=1e-12)
    settings = golden[f"semisup_p{percent}_group_settings_momentum_wd_nesterov"]
    for group in settings.tolist():
        assert group == [preset.momentum, preset.weight_decay, float(preset.nesterov)]
    assert preset.subset == LabelledSubset(fraction=percent / 100)


@pytest.mark.parametrize(("images", "percent"), [(13, 1), (128, 10)])
def test_few_images_a_class_are_trained_on_as_few_labels_are(images: int, percent: int) -> None:
    low_shot, semi_supervised = typed(f"low_shot_{images}"), typed(f"semi_supervised_{percent}")
    assert low_shot.subset == LabelledSubset(per_class=images)
    same = {"subset": None, "source": ""}
    assert replace(low_shot, **same) == replace(semi_supervised, **same)


def test_all_labels_are_trained_on_as_vissl_does() -> None:
    preset = typed("finetune_imagenet")
    assert (preset.epochs, preset.batch_size, preset.nesterov) == (105, 256, True)
    assert (preset.momentum, preset.weight_decay, preset.subset) == (0.9, 0, None)
    falls = [0, 29, 30, 59, 60, 89, 90, 99, 100, 104]
    expected = [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]
    assert [preset.learning_rates(e)[0] for e in falls] == pytest.approx(expected)
    assert all(len(set(preset.learning_rates(e))) == 1 for e in range(105))
    assert replace(preset, batch_size=1024).learning_rates(0) == pytest.approx((0.4, 0.4))


def test_large_models_are_trained_at_384_px_as_seer_does() -> None:
    preset = typed("finetune_384")
    assert (preset.epochs, preset.batch_size, preset.subset) == (35, 256, None)
    assert (preset.momentum, preset.weight_decay) == (0.9, 1e-4)
    rates = [preset.learning_rates(epoch) for epoch in (0, 29, 30, 34)]
    assert rates == [pytest.approx((lr, lr)) for lr in (0.0125, 0.0125, 0.00125, 0.00125)]
    assert preset.view is not None
    assert [view.size for view in preset.view.build().views] == [384]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_says_where_it_comes_from(preset: str) -> None:
    header = (CONFIGS / f"{preset}.yaml").read_text().split("name: finetune")[0]
    for word in (
        "source: ",
        "command: unlabeled evaluate benchmark=",
        "expected: ",
        "reproduced: ",
    ):
        assert f"# {word}" in header
    assert f"benchmark={preset} " in header
    assert typed(preset).train_transform is None  # random resized crop and flip
