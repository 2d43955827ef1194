"""Training all weights: against SGD written by hand, on one rank and on two."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests_support.probes import SIDE, Blobs, Whole, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.schema import SyncBatchNormConfig
from unlabeled.errors import ConfigError, DivergenceError
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.finetuning import Network, finetune, network
from unlabeled.evaluation.training_views import training_views

BATCH = 16
SYNCHRONISED = SyncBatchNormConfig(enabled=True, group_size=None)


@dataclass(frozen=True)
class Recipe:
    """Rates that differ between the two parts and between epochs."""

    epochs: int = 2
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.02
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    sync_batch_norm: SyncBatchNormConfig = SYNCHRONISED
    rates: tuple[tuple[float, float], ...] = ((0.02, 0.3), (0.004, 0.1))

    def learning_rates(self, epoch: int) -> tuple[float, float]:
        return self.rates[epoch]


def backbone(dropout: float = 0.0) -> nn.Module:
    """A small network with batch normalisation, frozen as a benchmark is given it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(6, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.Flatten(),
        )
    return layers.eval().requires_grad_(False)


def probe(dropout: float = 0.0, seed: int = 0, count: int = 70) -> Probe:
    blobs = Blobs(classes=4, spread=40)
    made = make_probe(
        blobs.draw(count, 1),
        blobs.draw(30, 2),
        encode=backbone(dropout),
        backbone=backbone(dropout),
        feature_dim=8 * (SIDE - 2) ** 2,
        seed=seed,
    )
    return replace(made, train=blobs.draw(count, 1))


def trained(measured: Probe, recipe: Recipe | None = None) -> Network:
    """The network after the last epoch, on noisy views."""
    views = training_views(measured, measured.train, Whole(noise=9), batch_size=BATCH)
    for model in finetune(measured, views, recipe or Recipe()):
        assert not model.training
    return model


def flat(model: nn.Module) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in model.state_dict().values()])


@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_equal_sgd_by_hand(nesterov: bool) -> None:
    recipe, measured = Recipe(nesterov=nesterov), probe()
    model = network(measured).train()
    parts = (list(model.backbone.parameters()), list(model.classifier.parameters()))
    speeds = [[torch.zeros_like(p) for p in part] for part in parts]
    views = training_views(measured, measured.train, Whole(noise=9), batch_size=BATCH)
    steps = 0
    for epoch in range(2):
        for batch in views(epoch):
            scores = model(measured.normalize(batch.views[0]))
            assert batch.labels is not None
            log_p = scores - scores.logsumexp(dim=1, keepdim=True)
            loss = -log_p[torch.arange(BATCH), batch.labels].mean()
            gradients = torch.autograd.grad(loss, [*parts[0], *parts[1]])
            given = iter(gradients)
            for part, speed, rate in zip(parts, speeds, recipe.rates[epoch], strict=True):
                for p, v in zip(part, speed, strict=True):
                    with torch.no_grad():
                        g = next(given) + recipe.weight_decay * p
                        v.mul_(recipe.momentum).add_(g)
                        p -= rate * (g + recipe.momentum * v if nesterov else v)
            steps += 1
    assert steps == 2 * (70 // BATCH + 1)
    torch.testing.assert_close(flat(trained(measured, recipe)), flat(model), atol=1e-6, rtol=1e-6)


def test_each_rate_moves_its_own_part() -> None:
    start = network(probe())
    for still, moved, rates in (
        ("backbone", "classifier", ((0.0, 0.1),) * 2),
        ("classifier", "backbone", ((0.1, 0.0),) * 2),
    ):
        end = trained(probe(), Recipe(rates=rates))
        same, other = ([getattr(m, still), getattr(m, moved)] for m in (start, end))
        for before, after in zip(same[0].parameters(), other[0].parameters(), strict=True):
            assert before.equal(after)
        for before, after in zip(same[1].parameters(), other[1].parameters(), strict=True):
            assert not before.equal(after)
    # Batch normalisation is in training mode whatever the rate.
    frozen = trained(probe(), Recipe(rates=((0.0, 0.1),) * 2)).backbone
    assert isinstance(frozen, nn.Sequential) and isinstance(frozen[1], nn.BatchNorm2d)
    assert frozen[1].running_mean is not None and frozen[1].running_mean.any()


def global_state() -> list[Any]:
    return [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]


def test_the_backbone_and_global_randomness_stay_as_they_are() -> None:
    measured = probe(dropout=0.5)
    before = {name: tensor.clone() for name, tensor in measured.backbone.state_dict().items()}
    state = global_state()
    model = trained(measured)
    assert global_state() == state
    after = measured.backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    assert not any(module.training for module in measured.backbone.modules())
    assert not any(p.requires_grad or p.grad is not None for p in measured.backbone.parameters())
    changed = model.backbone.state_dict()
    assert not any(before[name].equal(changed[name]) for name in before)


def test_weights_are_a_function_of_the_seed_with_dropout_too() -> None:
    torch.manual_seed(1)
    one = flat(trained(probe(dropout=0.5)))
    torch.manual_seed(2)
    assert one.equal(flat(trained(probe(dropout=0.5))))
    assert not one.equal(flat(trained(probe(dropout=0.5, seed=1))))
    assert not one.equal(flat(trained(probe())))  # dropout does act


def test_the_classifier_starts_uniform_as_torch_has_it() -> None:
    wide = replace(probe(), backbone=nn.Flatten(), feature_dim=2500)
    classifier = network(wide).classifier
    bound = 1 / 50
    weights = classifier.weight.detach()
    assert float(weights.abs().max()) <= bound and float(classifier.bias.detach().abs().max()) > 0
    assert float(weights.std()) == pytest.approx(bound / 3**0.5, rel=0.03)
    assert not network(replace(wide, seed=1)).classifier.weight.equal(weights)


def on_ranks(enabled: bool) -> Tensor:
    sync = SyncBatchNormConfig(enabled=enabled, group_size=None)
    return flat(trained(probe(), Recipe(sync_batch_norm=sync)))


@pytest.mark.slow
def test_two_ranks_train_what_one_does() -> None:
    alone = on_ranks(True)
    for found in run_ranks(on_ranks, 2, True):
        torch.testing.assert_close(found, alone, atol=2e-5, rtol=1e-4)
    apart = run_ranks(on_ranks, 2, False)  # statistics of half a batch are others
    assert not torch.allclose(apart[0], alone, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_forward_pass_is_of_the_precision_and_nothing_else(
    precision: Literal["bf16", "fp16"], dtype: torch.dtype
) -> None:
    seen = []
    measured = probe()
    measured.backbone[0].register_forward_hook(lambda *of: seen.append(of[2].dtype))  # type: ignore[index]
    recipe = Recipe(precision=precision, rates=((0.01, 0.02),) * 2)
    model = trained(measured, recipe)
    assert set(seen) == {dtype}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    whole, start = flat(trained(probe(), replace(recipe, precision="fp32"))), flat(network(probe()))
    found = flat(model)
    assert not found.equal(whole)
    assert float((found - whole).norm()) < 0.05 * float((whole - start).norm())


def test_features_of_another_width_are_named() -> None:
    with pytest.raises(ConfigError, match=r"shape \[16, 32\] for 16 images, not \[16, 33\]"):
        trained(replace(probe(), feature_dim=33))


def test_a_loss_that_explodes_is_named_with_its_rates() -> None:
    with pytest.raises(DivergenceError, match=r"in epoch 1 .*1e\+30 \(backbone\) and 2e\+30"):
        trained(probe(), Recipe(rates=((1e30, 2e30),) * 2))


def test_a_backbone_without_weights_trains_its_classifier() -> None:
    blobs = Blobs(classes=3, spread=5)
    plain = make_probe(blobs.draw(64, 1), blobs.draw(20, 2), backbone=nn.Flatten())
    model = trained(plain, Recipe(epochs=2, rates=((0.1, 0.1),) * 2))
    images = torch.stack([torch.from_numpy(i.copy()).permute(2, 0, 1) for i in plain.test.images])  # type: ignore[attr-defined]
    scores = model(plain.normalize(images))
    assert plain.test.labels is not None
    assert float((scores.argmax(dim=1).numpy() == plain.test.labels).mean()) > 0.9
    assert F.cross_entropy(scores, torch.from_numpy(plain.test.labels)) < 0.5
