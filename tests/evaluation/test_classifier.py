from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from unlabeled.errors import DivergenceError
from unlabeled.evaluation.classifier import (
    Feed,
    cosine_rate,
    descend,
    fit,
    inverse_root_rate,
    step_rate,
)

DATA = Path(__file__).parents[1] / "data"
GOLDEN = DATA / "swav_eval_lrs.npz"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Constant:
    """A recipe with one rate."""

    epochs: int = 3
    lr: float = 0.5
    momentum: float = 0.9
    weight_decay: float = 0.01

    def learning_rate(self, epoch: int) -> float:
        return self.lr / (epoch + 1)


def whole(features: Tensor, labels: Tensor) -> Feed:
    def feed(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield features, labels

    return feed


def test_schedules_equal_the_official_ones() -> None:
    golden = np.load(GOLDEN)
    cosine = [cosine_rate(0.3, epoch, 100) for epoch in range(100)]
    np.testing.assert_allclose(cosine, golden["linear_cosine_ep100_final0"][:, 0], atol=1e-12)
    step = [step_rate(0.3, epoch, [60, 80], 0.1) for epoch in range(100)]
    np.testing.assert_allclose(step, golden["linear_step_ep100_final0"][:, 0], atol=1e-12)


def test_starts_from_small_normal_weights_of_the_seed() -> None:
    rows, labels = torch.zeros(4, 500), torch.zeros(4, dtype=torch.int64)
    frozen = Constant(epochs=1, lr=0.0)
    state = torch.get_rng_state()
    makes = [
        next(
            fit(whole(rows, labels), frozen, feature_dim=500, num_classes=40, seed=seed, device=CPU)
        )
        for seed in (1, 1, 2)
    ]
    assert torch.get_rng_state().equal(state)
    weights = [made.weight.detach() for made in makes]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])
    assert float(weights[0].std()) == pytest.approx(0.01, rel=0.02)
    assert float(weights[0].mean()) == pytest.approx(0, abs=3e-4)
    assert not makes[0].bias.any()


def test_steps_equal_sgd_by_hand() -> None:
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(12, 4, generator=generator)
    labels = torch.randint(0, 3, (12,), generator=generator)
    recipe = Constant()
    trained = fit(whole(rows, labels), recipe, feature_dim=4, num_classes=3, seed=9, device=CPU)
    start = torch.empty(3, 4).normal_(0, 0.01, generator=torch.Generator().manual_seed(9))
    weight, bias = start.double().numpy(), np.zeros(3)
    velocity = [np.zeros_like(weight), np.zeros_like(bias)]
    for epoch, classifier in enumerate(trained):
        logits = rows.double().numpy() @ weight.T + bias
        error = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        error[np.arange(12), labels.numpy()] -= 1
        gradients = [error.T @ rows.double().numpy() / 12, error.mean(axis=0)]
        for number, value in enumerate((weight, bias)):
            velocity[number] = 0.9 * velocity[number] + gradients[number] + 0.01 * value
            value -= recipe.learning_rate(epoch) * velocity[number]
        np.testing.assert_allclose(classifier.weight.detach().numpy(), weight, atol=1e-6)
        np.testing.assert_allclose(classifier.bias.detach().numpy(), bias, atol=1e-6)


def test_the_rate_of_every_step_is_the_official_one() -> None:
    with np.load(DATA / "deepcluster_v1_steps.npz") as golden:
        steps, rates = golden["lrdecay_t"].tolist(), golden["lrdecay_lr_wd1e7_wd1e4"]
    for step, expected in zip(steps, rates, strict=True):
        found = [inverse_root_rate(0.01, decay, step) for decay in (1e-7, 1e-4)]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_rates_by_step_count_over_the_epochs() -> None:
    """Plain SGD on a constant slope adds up the rates of all steps."""
    value = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.SGD([value], lr=0.0)
    batch = (torch.ones(1), torch.zeros(1))
    path = [
        -float(value.detach())
        for _ in descend(
            lambda epoch: iter([batch] * (2 + epoch)),
            Constant(),
            optimizer,
            lambda features, labels: value * features.sum(),
            remedy="",
            step_rate=lambda step: 10.0**-step,
        )
    ]
    assert path[:2] == pytest.approx([1.1, 1.1111])  # two steps, then three
    assert len(path) == Constant().epochs


@pytest.mark.slow
def test_full_batches_reach_the_optimum_of_logistic_regression() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (150,), generator=generator)
    rows = torch.randn(150, 5, generator=generator) + torch.eye(5)[labels] * 1.5  # overlapping
    decay = 0.02

    @dataclass(frozen=True)
    class Long(Constant):
        epochs: int = 1500
        weight_decay: float = decay

        def learning_rate(self, epoch: int) -> float:
            return cosine_rate(0.3, epoch, self.epochs)

    feed = whole(rows, labels)
    for trained in fit(feed, Long(), feature_dim=5, num_classes=3, seed=0, device=CPU):
        classifier = trained
    # Ours decays the bias as well: a last feature of ones makes scikit-learn do the same.
    ones = torch.cat([rows, torch.ones(150, 1)], dim=1).double().numpy()
    exact = LogisticRegression(C=1 / (decay * 150), fit_intercept=False, tol=1e-10, max_iter=5000)
    exact.fit(ones, labels.numpy())
    found = torch.cat([classifier.weight, classifier.bias.unsqueeze(1)], dim=1).detach().numpy()
    np.testing.assert_allclose(found, exact.coef_, atol=1e-3)
    predicted = (rows @ classifier.weight.T + classifier.bias).argmax(dim=1).numpy()
    assert 0.5 < (predicted == labels.numpy()).mean() < 0.95
    assert (predicted == exact.predict(ones)).mean() > 0.99


def test_divergence_is_an_error_with_the_way_out() -> None:
    rows, labels = torch.full((4, 2), 1e30), torch.tensor([0, 1, 0, 1])
    recipe = Constant(epochs=5, lr=1e9)
    trained = fit(whole(rows, labels), recipe, feature_dim=2, num_classes=2, seed=0, device=CPU)
    with pytest.raises(DivergenceError, match=r"loss became .* in epoch \d.*standardize"):
        list(trained)
