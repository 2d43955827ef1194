"""DeepCluster: clusters of all images, a new classifier, and every cluster equally often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor, nn

from tests_support.in_process import different, state_of, tiny_config, tiny_trainer
from tests_support.ranks import run_ranks
from unlabeled.assigners.base import OfflineAssigner, OfflineCodes
from unlabeled.assigners.kmeans import KMeans
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.distributed import comm
from unlabeled.distributed.group import data_parallel
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.errors import ConfigError
from unlabeled.losses.cross_entropy import CrossEntropyLoss
from unlabeled.methods.base import DataFacts, Passes, Progress
from unlabeled.methods.deepcluster import DeepCluster
from unlabeled.models.heads.classifier import ClassifierHead
from unlabeled.models.heads.linear import LinearHead

IMAGES, DIM, OUTPUTS = 40, 6, 5
START = Progress(0, 3, 9)


class Given(OfflineAssigner):
    """Clusters that somebody has written down; notes what it is asked."""

    def __init__(self, *labels: Tensor) -> None:
        self.labels, self.asked = list(labels), list[tuple[Tensor, int, int]]()

    def assign(self, features: Tensor, *, num_clusters: int, seed: int, **rest: Any) -> Any:
        self.asked.append((features, num_clusters, seed))
        return OfflineCodes(self.labels.pop(0)[: len(features)], None, 1, {"objective": 2.0})


class Backbone(nn.Module):
    """Features that dropout and batch statistics would show."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM), nn.Dropout(0.5)
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


def method_of(assigner: Any, images: int = IMAGES, outputs: int = OUTPUTS) -> DeepCluster:
    torch.manual_seed(0)
    config = ClassifierHead.Config(outputs=outputs)
    return DeepCluster(
        DeepCluster.Config(),
        backbone=Backbone(),
        head=ClassifierHead(config, feature_dim=DIM, num_classes=0),
        loss=CrossEntropyLoss(CrossEntropyLoss.Config()),
        assigner=assigner,
        facts=DataFacts(
            num_samples=images,
            num_classes=0,
            views=(ViewSpec(1, "global"),) * 2,
            batch_size=12,
            micro_batch_size=12,
            steps_per_epoch=3,
            seed=7,
        ),
    )


def pixels() -> Tensor:
    return torch.randn(IMAGES, DIM, 1, 1, generator=torch.Generator().manual_seed(2))


def passes(images: Tensor, first: int = 0) -> Passes:
    """A central pass in batches of 7 of images that begin with number `first`."""

    def central() -> list[Batch]:
        rows = torch.arange(first, first + len(images)).split(7)
        return [Batch([images[part - first]], part, None) for part in rows]

    return Passes(lambda: pytest.fail("no augmented views are needed"), central)


def clusters(seed: int, outputs: int = OUTPUTS) -> Tensor:
    return torch.randint(outputs, (IMAGES,), generator=torch.Generator().manual_seed(seed))


def test_features_are_those_of_evaluation_and_leave_training_as_it_was() -> None:
    assigner = Given(clusters(0))
    method, images = method_of(assigner).train(), pixels()
    before = {name: tensor.clone() for name, tensor in method.backbone.state_dict().items()}
    method.start_epoch(START, passes(images))
    [(features, count, _)] = assigner.asked
    assert count == OUTPUTS and method.backbone.training
    layer = method.backbone.layers[1]  # running statistics are 0 and 1 at first
    expected = (images.flatten(1) @ layer.weight.t() + layer.bias) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(features, expected)
    assert not different(before, dict(method.backbone.state_dict()))
    assert torch.equal(method.labels, clusters(0))


def test_an_epoch_begins_with_a_new_classifier_and_the_log_knows_the_clusters() -> None:
    labels = [clusters(0), clusters(1), clusters(1)]
    labels[1][labels[1] == 3] = 2  # nobody in the fourth
    method = method_of(Given(*labels))
    first = method.start_epoch(START, passes(pixels()))
    assert first == {
        "objective": 2.0,
        "clusters": 5.0,
        "largest_cluster": float(torch.bincount(labels[0]).max()),
        "labelled_share": 1.0,
    }
    weight = method.head.classifier.weight.detach().clone()
    with torch.no_grad():
        method.head.classifier.bias.fill_(1.0)
    second = method.start_epoch(Progress(3, 3, 9), passes(pixels()))
    assert second["clusters"] == 4.0
    expected = normalized_mutual_info_score(labels[1].numpy(), labels[0].numpy())
    assert second["nmi"] == pytest.approx(expected, abs=1e-6)
    assert not torch.equal(method.head.classifier.weight, weight)
    assert method.head.classifier.bias.eq(0).all()
    assert set(method.renewed()) == set(method.head.parameters())
    seeds = {seed for _, _, seed in method.assigner.asked}
    assert len(seeds) == 2


def test_loss_is_the_cross_entropy_over_the_clusters_that_have_images() -> None:
    labels = clusters(0)
    labels[labels == 1] = 4
    method = method_of(Given(labels)).eval()
    method.start_epoch(START, passes(pixels()))
    views, indices = list(torch.randn(2, 12, DIM, 1, 1)), torch.arange(5, 17)
    output = method(Batch(views, indices, None), 0)
    present = [0, 2, 3, 4]
    terms = []
    for view in views:
        logits = method.head(method.backbone(view)).scores[0][:, present].double()
        for row, label in zip(logits, labels[indices].tolist(), strict=True):
            terms.append(row.logsumexp(0) - row[present.index(label)])
    torch.testing.assert_close(output.loss.double(), torch.stack(terms).mean(), rtol=1e-5, atol=0)
    output.loss.backward()
    gradient = method.head.classifier.weight.grad
    assert gradient is not None and gradient.isfinite().all() and gradient[1].eq(0).all()
    assert torch.equal(output.codes.argmax(dim=1), labels[indices])


def test_images_without_a_cluster_are_neither_drawn_nor_learned_from() -> None:
    labels = clusters(0)
    labels[::4] = -100
    method = method_of(Given(labels)).eval()
    numbers = method.start_epoch(START, passes(pixels()))
    assert numbers["labelled_share"] == pytest.approx(0.75)
    drawn = method.epoch_order(START)
    assert len(drawn) == IMAGES and not set(drawn.tolist()) & set(range(0, IMAGES, 4))
    views, indices = list(torch.randn(2, 4, DIM, 1, 1)), torch.arange(0, 16, 4)
    output = method(Batch(views, indices, None), 0)
    assert float(output.loss.detach()) == 0 and output.codes.shape == (0, OUTPUTS)


def test_every_cluster_is_drawn_equally_often_in_another_order_each_epoch() -> None:
    labels = torch.tensor([0] * 30 + [1] * 6 + [2] * 3 + [4])
    method = method_of(Given(labels))
    method.start_epoch(START, passes(pixels()))
    orders = [method.epoch_order(Progress(3 * epoch, 3, 9)) for epoch in range(2)]
    again = method.epoch_order(Progress(4, 3, 9))  # a resumed run, within the second epoch
    assert np.array_equal(again, orders[1]) and not np.array_equal(*orders)
    for order in orders:
        counts = np.bincount(labels.numpy()[order], minlength=5)
        assert counts.sum() == IMAGES and counts[3] == 0  # 4 x 11 draws, of which 40 are kept
        assert all(7 <= count <= 11 for count in counts[[0, 1, 2, 4]])


def epoch_on_ranks() -> tuple[dict[str, float], Tensor, Tensor, float, list[Tensor]]:
    """k-means in place of given clusters: an epoch's start on this rank's share of the images.

    Then the loss and the gradient of a batch, without what mixes or drops anything of it.
    """
    method = method_of(KMeans(KMeans.Config(whitening_dim=4, backend="torch")))
    images, cuts = pixels(), [0, 17, IMAGES] if comm.world_size() == 2 else [0, IMAGES]
    first, end = cuts[comm.rank() : comm.rank() + 2]
    for progress in (START, Progress(3, 3, 9)):
        numbers = method.start_epoch(progress, passes(images[first:end], first))
    weight = method.head.classifier.weight.detach().clone()
    rows = torch.arange(12).chunk(comm.world_size())[comm.rank()]
    parallel = data_parallel(method.eval(), torch.device("cpu"))
    output = parallel(Batch([images[rows], images[rows + 9]], rows, None), 0)
    output.loss.backward()
    loss = float(comm.all_reduce_sum(output.loss.detach().clone())) / comm.world_size()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    return numbers, method.labels, weight, loss, gradients


@pytest.mark.slow
def test_two_ranks_find_the_clusters_of_one_and_its_gradient() -> None:
    numbers, labels, weight, loss, gradients = epoch_on_ranks()
    assert len(set(labels.tolist())) == OUTPUTS and len(gradients) == 6
    for found, others, other_weight, other_loss, slopes in run_ranks(epoch_on_ranks, 2):
        assert torch.equal(others, labels) and torch.equal(other_weight, weight)
        assert found == pytest.approx(numbers, rel=1e-5)
        assert other_loss == pytest.approx(loss, rel=1e-6)
        for one, other in zip(gradients, slopes, strict=True):
            torch.testing.assert_close(other, one, atol=1e-7, rtol=1e-4)


RUN = ("method=deepcluster", "hooks.knn_probe=null", "dataset.num_samples=30", "epochs=3")


@pytest.mark.slow
def test_the_rate_does_not_fall_unless_it_is_asked_to(tmp_path: Path) -> None:
    """What starts again in the last epoch has to learn as fast as in the first."""
    assert tiny_config(tmp_path, *RUN).scheduler.name == "constant"
    assert tiny_config(tmp_path, *RUN, "scheduler=cosine").scheduler.name == "cosine"


@pytest.mark.slow
def test_power_iteration_is_the_other_clustering_by_one_word(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *RUN, "assigner=power_iteration", "max_steps=1")
    trainer.fit()
    [start] = [r for r in RunDirectory(tmp_path).metrics() if r["phase"] == "epoch_start"]
    assert start["clusters"] == min(6, start["clusters_found"])
    labels = state_of(trainer)["labels"]
    assert (labels == -100).sum() == start["unlabelled_rows"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("head.outputs=31", "head.outputs: 31 clusters of 30 training images"),
        ("assigner=sinkhorn", "assigner: Sinkhorn is no OfflineAssigner.*assigner=kmeans"),
    ],
)
def test_parts_that_do_not_fit_are_named(choice: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_trainer(tmp_path, *RUN, choice)


def test_a_head_that_cannot_start_again_is_refused() -> None:
    method = method_of(Given())
    head = LinearHead(LinearHead.Config(), feature_dim=DIM, num_classes=OUTPUTS)
    parts = {"backbone": method.backbone, "loss": method.loss, "assigner": method.assigner}
    with pytest.raises(ConfigError, match="head: deepcluster needs one that can start again"):
        DeepCluster(DeepCluster.Config(), head=head, facts=method.facts, **parts)  # type: ignore


def test_smoothed_labels_are_refused(tmp_path: Path) -> None:
    """They would ask for outputs without images, whose logits are minus infinity."""
    with pytest.raises(ConfigError, match=r"loss\.label_smoothing: 0\.1 asks for outputs without"):
        tiny_trainer(tmp_path, "method=deepcluster", "loss.label_smoothing=0.1")
