"""The supervised baseline's head."""

from __future__ import annotations

import pytest
import torch

from unlabeled.errors import ConfigError
from unlabeled.models.heads.linear import LinearHead


def test_logits_are_affine_in_the_features_which_stay_the_embeddings() -> None:
    head = LinearHead(LinearHead.Config(), feature_dim=10, num_classes=4)
    x = torch.randn(7, 10)
    output = head(x)
    assert output.embeddings is x
    assert head.output_dim == 10
    expected = x @ head.classifier.weight.T + head.classifier.bias
    torch.testing.assert_close(output.scores, [expected])
    assert expected.shape == (7, 4)


def test_a_data_set_without_labels_is_a_fault_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="has no labels"):
        LinearHead(LinearHead.Config(), feature_dim=10, num_classes=0)
