"""DeeperCluster's head: every row is scored by the classifier of its super-class."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unlabeled.config.check import build_config
from unlabeled.distributed.pieces import building_pieces
from unlabeled.distributed.pretended import pretended_ranks
from unlabeled.distributed.sharding import device_mesh, divide_parameters, from_rows
from unlabeled.distributed.shards import local
from unlabeled.errors import ConfigError
from unlabeled.models.heads.hierarchical_classifier import HierarchicalClassifierHead


def head(rectify: bool = True) -> HierarchicalClassifierHead:
    config = HierarchicalClassifierHead.Config(
        rotations=4, super_clusters=2, sub_clusters=3, rectify=rectify
    )
    torch.manual_seed(0)
    return HierarchicalClassifierHead(config, feature_dim=5, num_classes=0)


def rows(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 5, generator=generator), torch.tensor([6, 0, 6, 3, 1, 0, 6])[:count]


@pytest.mark.parametrize("rectify", [True, False])
def test_scores_are_those_of_the_row_s_own_classifier(rectify: bool) -> None:
    model, (features, classes) = head(rectify), rows(7)
    output = model(features, classes)
    assert output.embeddings is features
    inputs = features.clamp(min=0) if rectify else features
    weights = model.lower.weight.view(8, 3, 5)
    for n, row in enumerate(inputs):
        own = int(classes[n])
        expected = weights[own] @ row + model.lower.bias.view(8, 3)[own]
        torch.testing.assert_close(output.scores[1][n], expected)
        torch.testing.assert_close(output.scores[0][n], model.upper(row))


def test_gradients_reach_the_own_classifier_and_no_other() -> None:
    model, (features, classes) = head(), rows(7)
    model(features, classes).scores[1].square().sum().backward()
    touched = model.lower.weight.grad.view(8, -1).abs().sum(dim=1) > 0
    assert touched.nonzero().flatten().tolist() == [0, 1, 3, 6]
    assert model.upper.weight.grad is None


def test_a_layer_starts_again_as_it_first_did_and_the_other_stays() -> None:
    model = head()
    upper, first = model.upper.weight.clone(), model.lower.weight.clone()
    with torch.no_grad():
        model.lower.bias.add_(1)
    state = torch.get_rng_state()
    model.reset([model.lower], seed=7)
    again = model.lower.weight.clone()
    model.reset([model.lower], seed=7)
    assert again.equal(model.lower.weight) and not again.equal(first)
    model.reset([model.lower], seed=8)
    assert not again.equal(model.lower.weight)
    assert not model.lower.bias.any() and model.upper.weight.equal(upper)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_are_spread_by_a_hundredth() -> None:
    config = HierarchicalClassifierHead.Config(super_clusters=4, sub_clusters=50)
    model = HierarchicalClassifierHead(config, feature_dim=64, num_classes=0)
    for _ in range(2):
        for layer in (model.upper, model.lower):
            assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
            assert not layer.bias.any()
        model.reset([model.upper, model.lower], seed=0)


@pytest.mark.parametrize("ranks", [2, 4, 8, 24])
def test_a_rank_has_its_rows_of_the_weights_that_one_rank_would_have(ranks: int) -> None:
    """Whole super-classes, or of 24 ranks each a third of one; from the start and from a reset."""
    alone = head()
    first = alone.lower.weight.clone()
    alone.reset([alone.lower], seed=7)
    rows = 24 // ranks
    with pretended_ranks(ranks):
        with building_pieces() as pieces:
            model = head()
        made = pieces.release(model)["lower.weight"]
        assert torch.equal(made, first[:rows])
        divide_parameters(model, {model.lower.weight}, device_mesh(torch.device("cpu")))
        model.load_state_dict(
            {"lower.weight": from_rows(made, model.lower.weight)}, strict=False, assign=True
        )
        model.reset([model.lower], seed=7)
        assert torch.equal(local(model.lower.weight), alone.lower.weight[:rows])
        assert model.lower.weight.shape == (24, 5)


def test_ranks_that_cannot_divide_the_classifiers_are_refused() -> None:
    with pretended_ranks(3), pytest.raises(ConfigError, match=r"8 super-classes .* 3 processes"):
        head().divide()
    with pretended_ranks(16), pytest.raises(ConfigError, match=r"3 .* 2 processes .*16 for 8"):
        head().divide()


def test_impossible_values_are_named() -> None:
    for name in ("super_clusters", "sub_clusters"):
        with pytest.raises(ConfigError, match=f"{name}: must be 1 or more, got 0"):
            build_config(HierarchicalClassifierHead.Config, {name: 0})
    with pytest.raises(ConfigError, match="rotations"):
        build_config(HierarchicalClassifierHead.Config, {"rotations": 2})
