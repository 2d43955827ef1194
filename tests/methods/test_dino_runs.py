"""Every choice of the thesis is a word or two on the command line, and goes on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests_support.in_process import tiny_config, tiny_trainer
from tests_support.same_run import assert_same_run
from unlabeled.assigners.centering import Centering
from unlabeled.assigners.sinkhorn import Sinkhorn
from unlabeled.engine.pretrain import pretrain
from unlabeled.errors import ConfigError
from unlabeled.methods.dino import DINO

CPU = torch.device("cpu")
SHORT = ("dataset.num_samples=24", "epochs=2", "hooks.knn_probe=null", "hooks.export=null")
TINY_VIT = (
    *("backbone=vit_32px", "~backbone.stages", "backbone.width=24", "backbone.depth=2"),
    "backbone.image_size=16",
)
CHOICES = {
    "momentum teacher, warm-up, accumulation": (
        *("assigner.warmup_epochs=2", "assigner.temperature=0.07", "method.momentum=0.9"),
        *("clip_grad_norm=0.1", "clip_grad_scope=tensor", "accumulate_steps=3"),
    ),
    "teacher of the last epoch, predictor": (
        "method.teacher=last_epoch",
        "method.predictor_hidden_dim=8",
    ),
    "hard teacher of the last iteration": (
        "method.teacher=last_iteration",
        "assigner.temperature=0",
        "assigner.warmup_temperature=0",
    ),
    "no momentum, Sinkhorn: SwAV in the thesis": ("method.teacher=student", "assigner=sinkhorn"),
    "MSE": ("loss=normalized_mse", "assigner=centered_scores"),
    "vision transformer": (*TINY_VIT, "backbone.drop_path=0.3", "head.batch_norm=false"),
}


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
def test_a_run_stopped_inside_an_epoch_goes_on_bit_for_bit(choice: str, tmp_path: Path) -> None:
    overrides = ("method=dino", *CHOICES[choice], *SHORT)
    alone, parts = (tiny_config(tmp_path / name, *overrides) for name in ("alone", "parts"))
    pretrain(alone, CPU)
    pretrain(replace(parts, max_steps=3), CPU)
    torch.manual_seed(1)  # a process of its own would start elsewhere
    pretrain(parts, CPU)
    assert_same_run(tmp_path / "parts", tmp_path / "alone", steps=4)


@pytest.mark.slow
def test_swav_trains_a_vision_transformer(tmp_path: Path) -> None:
    """The thesis's other rows: SwAV itself, on the backbone that DINO is for."""
    trainer = tiny_trainer(tmp_path, "method=swav", *TINY_VIT, *SHORT)
    before = {n: p.detach().clone() for n, p in trainer.method.backbone.named_parameters()}
    trainer.fit()
    after = dict(trainer.method.backbone.named_parameters())
    assert not any(torch.equal(p, after[n]) for n, p in before.items() if p.ndim > 1)


@pytest.mark.slow
def test_the_code_maker_is_swapped_by_a_word(tmp_path: Path) -> None:
    for words, kind in (((), Centering), (("assigner=sinkhorn",), Sinkhorn)):
        method = tiny_trainer(tmp_path, "method=dino", *words).method
        assert isinstance(method, DINO)
        assert type(method.assigner) is kind


@pytest.mark.slow
def test_parts_that_do_not_fit_are_refused_before_training(tmp_path: Path) -> None:
    for words, message in (
        (("method=dino", "loss=normalized_mse"), "use assigner=centered_scores"),
        (("method=dino", "assigner=spherical_kmeans"), "use assigner=centering"),
        (("method=dino", "head=prototypes"), "use head=dino"),
        (("method=swav", "assigner=centering"), "use assigner=sinkhorn"),
    ):
        with pytest.raises(ConfigError, match=message):
            tiny_trainer(tmp_path, *words)
