"""The supervised baseline: cross-entropy over views, labels required."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlabeled.data.types import Batch, ViewSpec
from unlabeled.errors import ConfigError
from unlabeled.losses.cross_entropy import CrossEntropyLoss
from unlabeled.methods.base import DataFacts
from unlabeled.methods.supervised import Supervised
from unlabeled.models.heads.linear import LinearHead


def build(classes: int) -> Supervised:
    return Supervised(
        Supervised.Config(),
        backbone=nn.Identity(),
        head=LinearHead(LinearHead.Config(), feature_dim=5, num_classes=max(classes, 2)),
        loss=CrossEntropyLoss(CrossEntropyLoss.Config()),
        facts=DataFacts(
            num_samples=10,
            num_classes=classes,
            views=(ViewSpec(5, "global"),) * 3,
            batch_size=4,
            micro_batch_size=4,
            steps_per_epoch=2,
            seed=0,
        ),
    )


def test_loss_is_the_mean_over_views_of_the_classifiers_cross_entropy() -> None:
    method = build(3)
    views, labels = torch.randn(3, 4, 5), torch.tensor([0, 2, 1, 1])
    weight, bias = (p.detach() for p in method.head.parameters())
    per_view = [nn.functional.cross_entropy(v @ weight.t() + bias, labels) for v in views]
    loss = method(Batch(list(views), torch.arange(4), labels), 0).loss
    torch.testing.assert_close(loss, torch.stack(per_view).mean())


@pytest.mark.parametrize("classes", [0, 1])
def test_data_without_two_classes_is_refused(classes: int) -> None:
    with pytest.raises(ConfigError, match="needs labels of 2 or more classes"):
        build(classes)
