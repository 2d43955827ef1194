"""SimCLR as a method: one rank equals two, two views are NT-Xent, one view is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests_support.ranks import run_ranks
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.distributed import comm
from unlabeled.distributed.group import data_parallel
from unlabeled.errors import ConfigError
from unlabeled.losses.simclr import SimCLRLoss
from unlabeled.methods.base import DataFacts
from unlabeled.methods.simclr import SimCLR
from unlabeled.models.heads.projection import ProjectionHead

IMAGES, DIM = 8, 6


def build(views: int) -> SimCLR:
    torch.manual_seed(0)
    config = ProjectionHead.Config(hidden_dim=5, output_dim=4)
    return SimCLR(
        SimCLR.Config(),
        backbone=nn.Linear(DIM, DIM),
        head=ProjectionHead(config, feature_dim=DIM, num_classes=0),
        loss=SimCLRLoss(SimCLRLoss.Config(temperature=0.2)),
        facts=DataFacts(
            num_samples=100,
            num_classes=0,
            views=(ViewSpec(DIM, "global"),) * views,
            batch_size=IMAGES,
            micro_batch_size=IMAGES // comm.world_size(),
            steps_per_epoch=1,
            seed=0,
        ),
    )


def images(views: int) -> Tensor:
    return torch.randn(views, IMAGES, DIM, generator=torch.Generator().manual_seed(1))


def loss_and_gradients(views: int) -> tuple[float, list[Tensor]]:
    """Mean loss over ranks and averaged gradients, from this rank's share of the images."""
    method = build(views)
    share = IMAGES // comm.world_size()
    rows = slice(comm.rank() * share, (comm.rank() + 1) * share)
    batch = Batch(list(images(views)[:, rows]), torch.arange(share), None)
    parallel = data_parallel(method, torch.device("cpu"))
    loss = parallel(batch, 0).loss
    loss.backward()
    mean = float(comm.all_reduce_sum(loss.detach().clone()) / comm.world_size())
    return mean, [p.grad.clone() for p in method.parameters() if p.grad is not None]


def each_number_of_views() -> list[tuple[float, list[Tensor]]]:
    return [loss_and_gradients(views) for views in (2, 3)]


def test_two_ranks_equal_one_in_loss_and_gradient() -> None:
    alone = each_number_of_views()
    for together in run_ranks(each_number_of_views, 2):
        for (loss, grads), (other, others) in zip(alone, together, strict=True):
            assert other == pytest.approx(loss, rel=1e-5)
            for mine, theirs in zip(grads, others, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_two_views_are_nt_xent() -> None:
    method = build(2)
    batch = Batch(list(images(2)), torch.arange(IMAGES), None)
    z = method.head(method.backbone(torch.cat(batch.views))).embeddings
    similarity = z @ z.t() / 0.2
    similarity.fill_diagonal_(-torch.inf)
    positives = torch.arange(2 * IMAGES).roll(IMAGES)
    expected = nn.functional.cross_entropy(similarity, positives)
    torch.testing.assert_close(method(batch, 0).loss, expected)


def test_one_view_is_refused() -> None:
    with pytest.raises(ConfigError, match="emits 1 view"):
        build(1)
