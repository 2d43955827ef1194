"""SeLa-v2: balanced labels from the current prototypes, which gradients move after the freeze."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from unlabeled.assigners.sinkhorn_dataset import SinkhornDataset
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.losses.clustering import ClusteringLoss
from unlabeled.methods.base import DataFacts, Passes, Progress
from unlabeled.methods.sela_v2 import SeLaV2
from unlabeled.models.heads.prototypes import PrototypesHead

IMAGES, DIM, STEPS = 24, 6, 3


def build(freeze: int) -> SeLaV2:
    torch.manual_seed(0)
    config = PrototypesHead.Config(
        hidden_dim=1, num_hidden_layers=0, output_dim=DIM, batch_norm=False, num_prototypes=[4, 3]
    )
    return SeLaV2(
        SeLaV2.Config(freeze_prototypes_steps=freeze),
        backbone=nn.Identity(),
        head=PrototypesHead(config, feature_dim=DIM, num_classes=0),
        loss=ClusteringLoss(ClusteringLoss.Config()),
        assigner=SinkhornDataset(SinkhornDataset.Config()),
        facts=DataFacts(
            num_samples=IMAGES,
            num_classes=0,
            views=(ViewSpec(DIM, "global"),) * 2,
            batch_size=IMAGES // STEPS,
            micro_batch_size=IMAGES // STEPS,
            steps_per_epoch=STEPS,
            seed=0,
        ),
    )


def batches() -> list[Batch]:
    views = torch.randn(2, IMAGES, DIM, generator=torch.Generator().manual_seed(2))
    rows = torch.arange(IMAGES).chunk(STEPS)
    return [Batch(list(views[:, r]), r, None) for r in rows]


def test_labels_are_balanced_and_follow_the_prototypes() -> None:
    method = build(freeze=0)
    method.start_epoch(Progress(0, STEPS, 9), Passes(batches, list))
    for number, prototypes in enumerate(method.head.prototypes):
        counts = torch.bincount(method.labels[number], minlength=prototypes.out_features)
        # Equal shares are IMAGES / K; rounding the soft assignment moves a label or two.
        assert (counts - IMAGES / prototypes.out_features).abs().max() <= 3
        # Set h is labelled from the bank of assign crop h mod 2.
        scores = method.bank_features[number % 2] @ prototypes.weight.detach().t()
        agreement = (scores.argmax(1) == method.labels[number][method.bank_indices]).float().mean()
        assert agreement > 1 / prototypes.out_features


def test_prototypes_learn_only_after_the_freeze_and_stay_normalised() -> None:
    method = build(freeze=2)
    method.start_epoch(Progress(0, STEPS, 9), Passes(batches, list))
    for step, batch in enumerate(batches()):
        progress = Progress(step, STEPS, 9)
        with torch.no_grad():
            method.before_step(progress, [batch])
            for prototypes in method.head.prototypes:
                norms = functional.normalize(prototypes.weight, dim=1)
                torch.testing.assert_close(prototypes.weight, norms)
        method.zero_grad(set_to_none=True)
        method(batch, 0).loss.backward()
        method.after_backward(progress)
        gradients = [p.weight.grad for p in method.head.prototypes]
        assert all((g is None) == (step < 2) for g in gradients)


def test_the_bank_follows_the_steps_of_the_epoch() -> None:
    method = build(freeze=0)
    method.start_epoch(Progress(0, STEPS, 9), Passes(batches, list))
    fresh = batches()[::-1]
    for step, batch in enumerate(fresh):
        method.before_step(Progress(STEPS + step, STEPS, 9), [batch])
        method(batch, 0)
    assert torch.equal(method.bank_indices, torch.cat([b.indices for b in fresh]))
    expected = torch.cat([method.head(b.views[1]).embeddings for b in fresh])
    torch.testing.assert_close(method.bank_features[1], expected.detach())
