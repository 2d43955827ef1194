from __future__ import annotations

import pytest
import torch

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.models.heads.classifier import ClassifierHead


def head(outputs: int = 7, rectify: bool = True, feature_dim: int = 5) -> ClassifierHead:
    config = ClassifierHead.Config(outputs=outputs, rectify=rectify)
    return ClassifierHead(config, feature_dim=feature_dim, num_classes=0)


@pytest.mark.parametrize("rectify", [False, True])
def test_logits_are_linear_in_the_rectified_features(rectify: bool) -> None:
    classifier, features = head(rectify=rectify), torch.randn(4, 5)
    output = classifier(features)
    rows = features.clamp(min=0) if rectify else features
    expected = rows @ classifier.classifier.weight.t() + classifier.classifier.bias
    torch.testing.assert_close(output.scores[0], expected)
    assert output.embeddings is features and classifier.output_dim == 5


def test_a_reset_is_a_function_of_the_seed_and_starts_anew() -> None:
    classifier = head(outputs=200, feature_dim=100)
    first = classifier.classifier.weight.detach().clone()
    with torch.no_grad():
        classifier.classifier.bias.fill_(3.0)
    state = torch.get_rng_state()
    seen = []
    for seed in (5, 5, 6):
        classifier.reset(seed)
        seen.append(classifier.classifier.weight.detach().clone())
        assert classifier.classifier.bias.eq(0).all()
    assert torch.get_rng_state().equal(state)
    assert seen[0].equal(seen[1]) and not seen[0].equal(seen[2])
    for weight in (first, *seen):  # of 20,000 draws: deviation within 0.5 %, five of its errors 2.5
        assert float(weight.std()) == pytest.approx(0.01, rel=0.025)
        assert float(weight.mean()) == pytest.approx(0, abs=5 * 0.01 / 20_000**0.5)


def test_one_output_is_refused() -> None:
    with pytest.raises(ConfigError, match="outputs: must be 2 or more, got 1"):
        build_config(ClassifierHead.Config, {"outputs": 1})
