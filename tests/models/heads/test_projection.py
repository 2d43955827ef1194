"""SimCLR's head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unlabeled.models.heads.projection import ProjectionHead


def make(**fields: Any) -> ProjectionHead:
    config = {"hidden_dim": 12, "output_dim": 6, **fields}
    return ProjectionHead(ProjectionHead.Config(**config), feature_dim=10, num_classes=0)


def test_the_default_is_linear_relu_linear_on_the_unit_sphere() -> None:
    head, x = make(), torch.randn(7, 10)
    weights = dict(head.named_parameters())
    hidden = (x @ weights["mlp.0.weight"].T + weights["mlp.0.bias"]).clamp(min=0)
    z = hidden @ weights["mlp.2.weight"].T + weights["mlp.2.bias"]
    output = head(x)
    torch.testing.assert_close(output.embeddings, z / z.square().sum(dim=1, keepdim=True).sqrt())
    assert output.scores == []
    assert head.output_dim == 6
    assert len(weights) == 4


@pytest.mark.parametrize(("where", "count"), [("none", 0), ("hidden", 1), ("all", 2)])
def test_batch_norm_where_asked(where: str, count: int) -> None:
    head = make(batch_norm=where)
    assert sum(isinstance(m, nn.BatchNorm1d) for m in head.modules()) == count


def test_embeddings_are_float32_under_autocast_and_have_unit_norm() -> None:
    head, x = make(), torch.randn(7, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = head(x).embeddings
        raw = head.mlp(x)
    assert raw.dtype == torch.bfloat16
    assert lowered.dtype == torch.float32
    assert torch.equal(lowered, F.normalize(raw.float(), dim=1))


def test_faults_name_the_field() -> None:
    faults = dict(ProjectionHead.Config(hidden_dim=0, num_hidden_layers=-1).problems())
    assert set(faults) == {"hidden_dim", "num_hidden_layers"}
    assert not list(ProjectionHead.Config().problems())
