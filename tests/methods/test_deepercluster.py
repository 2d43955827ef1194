"""DeeperCluster against its groups of ranks played through one by one, and its laws."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from unlabeled.assigners.hierarchical_kmeans import HierarchicalKMeans
from unlabeled.assigners.kmeans import KMeans
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.distributed.pretended import pretended_ranks
from unlabeled.errors import ConfigError
from unlabeled.losses.cross_entropy import CrossEntropyLoss
from unlabeled.methods.base import DataFacts, Passes, Progress
from unlabeled.methods.deepercluster import DeeperCluster
from unlabeled.models.heads.hierarchical_classifier import HierarchicalClassifierHead

IMAGES, BATCH, STEPS, SIZE, DIM = 40, 16, 2, 3, 6
SUPER, SUB, TURNS = 2, 4, 4


class Pixels(nn.Module):
    """Linear features of the pixels, different for every turn of an image."""

    feature_dim = DIM

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * SIZE * SIZE, DIM)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1))


def build(**choices: object) -> DeeperCluster:
    torch.manual_seed(0)
    sizes = {"rotations": TURNS, "super_clusters": SUPER, "sub_clusters": SUB} | choices
    every_epochs = int(str(sizes.pop("every_epochs", 3)))
    micro_batch = int(str(sizes.pop("micro_batch", BATCH)))
    assigner = sizes.pop("assigner", None)
    config = HierarchicalKMeans.Config(
        super_clusters=int(str(sizes["super_clusters"])), whitening_dim=4, backend="torch"
    )
    return DeeperCluster(
        DeeperCluster.Config(every_epochs=every_epochs),
        backbone=Pixels(),
        head=HierarchicalClassifierHead(
            HierarchicalClassifierHead.Config(**sizes),  # type: ignore[arg-type]
            feature_dim=DIM,
            num_classes=0,
        ),
        loss=CrossEntropyLoss(CrossEntropyLoss.Config()),
        assigner=assigner or HierarchicalKMeans(config),  # type: ignore[arg-type]
        facts=DataFacts(
            num_samples=IMAGES,
            num_classes=0,
            views=(ViewSpec(SIZE, "global"),) * 2,
            batch_size=BATCH,
            micro_batch_size=micro_batch,
            steps_per_epoch=STEPS,
            seed=0,
        ),
    )


def pictures() -> Tensor:
    return torch.randn(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def central() -> Iterator[Batch]:
    for indices in torch.arange(IMAGES).split(7):
        yield Batch([pictures()[indices]], indices, None)


def nothing() -> Iterator[Batch]:
    raise AssertionError("DeeperCluster looks at central views alone")


def at(epoch: int, step: int = 0) -> Progress:
    return Progress(epoch * STEPS + step, STEPS, 9 * STEPS)


def begun(epoch: int = 0, **choices: object) -> DeeperCluster:
    method = build(**choices)
    method.start_epoch(at(epoch), Passes(nothing, central))
    return method


def batch_of(method: DeeperCluster, progress: Progress) -> Batch:
    start = progress.epoch_step * BATCH
    indices = torch.from_numpy(method.epoch_order(progress))[start : start + BATCH]
    return Batch([pictures()[indices], 0.5 * pictures()[indices]], indices, None)


def stepped(method: DeeperCluster, progress: Progress) -> Tensor:
    batch = batch_of(method, progress)
    method.before_step(progress, [batch])
    loss = method(batch, 0).loss
    loss.backward()
    method.after_backward(progress)
    return loss.detach()


@pytest.mark.parametrize("step", [0, 1])
def test_equals_groups_of_ranks_that_each_train_a_super_class(step: int) -> None:
    """As the official code has it: a group sees one super-cluster in one turn and has classifiers
    of its own; trunk and super-class layer get the mean of all groups' gradients."""
    method = begun()
    loss = stepped(method, at(0, step))
    batch, head = batch_of(method, at(0, step)), method.head
    groups = SUPER * TURNS
    parameters = {
        "trunk": method.backbone.linear.weight,
        "upper": head.upper.weight,
    }
    expected = {name: torch.zeros(p.shape).double() for name, p in parameters.items()}
    losses = []
    for group in range(groups):
        rows = torch.arange(group, BATCH, groups)
        turn, number = divmod(group, SUPER)
        labels = method.labels[batch.indices[rows]]
        assert (labels // SUB).tolist() == [number] * len(rows)
        trunk, upper = (p.detach().double().requires_grad_() for p in parameters.values())
        lower = head.lower.weight.detach().double().view(groups, SUB, DIM)[group].requires_grad_()
        views = torch.cat([torch.rot90(v[rows].double(), turn, (2, 3)) for v in batch.views])
        bias = method.backbone.linear.bias.detach().double()
        features = functional.relu(views.flatten(1) @ trunk.T + bias)
        scores = features @ upper.T
        classes = torch.full((len(scores),), group)
        own = functional.cross_entropy(scores, classes) + functional.cross_entropy(
            features @ lower.T, (labels % SUB).repeat(2)
        )
        own.backward()
        losses.append(own.item())
        for name, tensor in (("trunk", trunk), ("upper", upper)):
            expected[name] += tensor.grad / groups
        gradient = head.lower.weight.grad.view(groups, SUB, DIM)[group]
        torch.testing.assert_close(gradient.double(), lower.grad, rtol=1e-5, atol=1e-7)
    assert float(loss) == pytest.approx(sum(losses) / groups, rel=1e-6)
    for name, gradient in expected.items():
        found = parameters[name].grad
        torch.testing.assert_close(found.double(), gradient, rtol=1e-5, atol=1e-7)


def test_loss_of_classifiers_that_know_nothing() -> None:
    method = begun()
    for layer in (method.head.upper, method.head.lower):
        nn.init.zeros_(layer.weight)
    expected = math.log(SUPER * TURNS) + math.log(SUB)
    assert float(stepped(method, at(0))) == pytest.approx(expected, rel=1e-6)


def test_one_cluster_in_each_leaves_the_rotations() -> None:
    method = begun(super_clusters=1, sub_clusters=1)
    batch = batch_of(method, at(0))
    method.before_step(at(0), [batch])
    output = method(batch, 0)
    turns = torch.arange(BATCH) % TURNS
    views = [
        torch.stack([torch.rot90(v, int(t), (1, 2)) for v, t in zip(view, turns, strict=True)])
        for view in batch.views
    ]
    scores = method.head.upper(functional.relu(method.backbone(torch.cat(views))))
    expected = functional.cross_entropy(scores, turns.repeat(2))
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.slow
def test_every_batch_has_as_many_images_of_every_super_class() -> None:
    method = begun()
    order = method.epoch_order(at(0))
    assert len(order) == STEPS * BATCH
    supers = method.labels[torch.from_numpy(order)] // SUB
    assert supers.tolist() == [0, 1] * (STEPS * BATCH // 2)
    counts = torch.bincount(method.labels, minlength=SUPER * SUB)
    assert len(set(counts.tolist())) > 2  # so that equal draws are not those of all images
    epochs = [torch.from_numpy(method.epoch_order(at(epoch))) for epoch in range(200)]
    drawn = torch.bincount(method.labels[torch.cat(epochs)], minlength=SUPER * SUB)
    assert (drawn / drawn.sum()).tolist() == pytest.approx([1 / (SUPER * SUB)] * SUPER * SUB, 0.1)


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
def test_divided_it_has_the_same_images_in_the_order_of_their_super_classes(ranks: int) -> None:
    """So that the contiguous share of a rank holds as many super-classes as the rank does."""
    groups = SUPER * TURNS
    method = begun(micro_batch=BATCH // ranks)
    order = method.epoch_order(at(0))
    with pretended_ranks(ranks):
        method.divide()
        divided = method.epoch_order(at(0))
    for start in range(0, STEPS * BATCH, BATCH):
        step = order[start : start + BATCH]
        expected = np.concatenate([step[group::groups] for group in range(groups)])
        assert divided[start : start + BATCH].tolist() == expected.tolist()


def test_micro_batches_that_do_not_divide_into_super_classes_are_refused() -> None:
    method = begun(micro_batch=6)
    with pretended_ranks(2), pytest.raises(ConfigError, match=r"12 images .* 8 super-classes"):
        method.divide()


def test_an_image_in_the_place_of_a_broken_one_counts_where_it_belongs() -> None:
    """On the lower level nowhere, if it is of another super-cluster than its place."""
    method, progress = begun(), at(0)
    batch = batch_of(method, progress)
    other = int((method.labels // SUB == 1).nonzero()[0])
    batch.indices[0], batch.views[0][0] = other, pictures()[other]
    batch.views[1][0] = 0.5 * pictures()[other]
    method.before_step(progress, [batch])
    found = method(batch, 0).loss
    places = torch.arange(BATCH) % (SUPER * TURNS)
    views = [
        torch.stack(
            [torch.rot90(x, int(p) // SUPER, (1, 2)) for x, p in zip(v, places, strict=True)]
        )
        for v in batch.views
    ]
    features = functional.relu(method.backbone(torch.cat(views)))
    labels = method.labels[batch.indices]
    upper = (places // SUPER * SUPER + labels // SUB).repeat(2)
    assert upper.tolist() != places.repeat(2).tolist()
    weights = method.head.lower.weight.view(SUPER * TURNS, SUB, DIM)
    right = [row for row in range(2 * BATCH) if row % BATCH]
    scores = torch.stack([weights[places[row % BATCH]] @ features[row] for row in right])
    lower = functional.cross_entropy(scores, (labels % SUB).repeat(2)[right])
    expected = functional.cross_entropy(method.head.upper(features), upper) + lower
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_order_is_a_function_of_the_epoch_and_the_labels() -> None:
    method = begun()
    first = method.epoch_order(at(1))
    torch.rand(3)
    assert (first == method.epoch_order(at(1, 1))).all()
    assert (first != method.epoch_order(at(2))).any()


def test_it_clusters_anew_every_third_epoch_and_starts_its_classifiers_again() -> None:
    method = build()
    for epoch in range(7):
        labels, lower = method.labels.clone(), method.head.lower.weight.clone()
        with torch.no_grad():
            method.backbone.linear.weight.copy_(torch.randn(DIM, 3 * SIZE * SIZE))
        numbers = method.start_epoch(at(epoch), Passes(nothing, central))
        due = epoch % 3 == 0
        assert due == bool(numbers) == bool(list(method.renewed()))
        assert due == (not labels.equal(method.labels))
        assert due == (not lower.equal(method.head.lower.weight))
        assert ("nmi" in numbers) == (due and epoch > 0)
    assert 0 < numbers["nmi"] < 1 and 0 <= numbers["super_nmi"] < 1


def test_rotations_keep_their_classifier_where_there_is_one_super_cluster() -> None:
    method = begun(super_clusters=1, every_epochs=1)
    upper, lower = method.head.upper.weight.clone(), method.head.lower.weight.clone()
    method.start_epoch(at(1), Passes(nothing, central))
    assert upper.equal(method.head.upper.weight) and not lower.equal(method.head.lower.weight)
    assert set(method.renewed()) == set(method.head.lower.parameters())


def test_features_are_those_of_evaluation_and_training_goes_on() -> None:
    method = build()
    modes: list[bool] = []
    method.train()
    method.backbone.register_forward_hook(lambda module, *_: modes.append(module.training))
    method.start_epoch(at(0), Passes(nothing, central))
    assert modes and not any(modes) and method.backbone.training


def test_impossible_combinations_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 x 30 = 60 clusters of 40 training images"):
        build(sub_clusters=30)
    with pytest.raises(ConfigError, match="assigner=hierarchical_kmeans"):
        build(assigner=KMeans(KMeans.Config()))
    other = HierarchicalKMeans(HierarchicalKMeans.Config(super_clusters=3))
    with pytest.raises(ConfigError, match="super_clusters: 3, but the head has 2"):
        build(assigner=other)
