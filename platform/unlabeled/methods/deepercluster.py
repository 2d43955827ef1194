"""DeeperCluster: rotations and clusters of two levels, predicted together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unlabeled.assigners.hierarchical_kmeans import HierarchicalKMeans
from unlabeled.clustering.agreement import normalized_mutual_information
from unlabeled.data.randomness import mix
from unlabeled.data.sampling.balanced import equal_draws
from unlabeled.data.types import Batch
from unlabeled.distributed import comm
from unlabeled.distributed.shards import is_sharded, local
from unlabeled.errors import ConfigError
from unlabeled.losses.labelled_rows import NO_LABEL
from unlabeled.methods.all_images import encoded, labels_of_all
from unlabeled.methods.base import DataFacts, Method, MethodOutput, Passes, Progress
from unlabeled.methods.multi_crop import multi_crop_features
from unlabeled.methods.quarter_turns import each_turned
from unlabeled.methods.requirements import check_assigner
from unlabeled.models.heads.hierarchical_classifier import HierarchicalClassifierHead
from unlabeled.registry import register

CLUSTERING, CLASSIFIER, ORDER = range(3)
"""What a seed of an epoch is for."""


@register("method", "deepercluster")
class DeeperCluster(Method):
    """Predict how an image is turned together with its super-cluster, and its cluster within.

    At the start of every `every_epochs` epochs: features of the whole data set, unturned, in
    evaluation mode and view; their m super-clusters and the clusters within each, by the assigner;
    and classifiers that start again. An image of super-cluster s turned by t x 90 degrees is of
    super-class y = t m + s. L = CE(super-class scores, y) + CE(scores of y's own classifier,
    cluster), means over views and images; the gradient of y's own classifier is that of a mean over
    the images of y. Every S = rotations x m positions of an epoch hold one image of each
    super-class, drawn so that the clusters within it come equally often.
    labels: [N] super-cluster x sub_clusters + cluster; nmi and super_nmi: how much a clustering has
    in common with the one before; super_class_accuracy: share of views whose y was recognised. With
    one super-cluster of one cluster it is RotNet, with one and without rotations DeepCluster.
    Under DDP clusters are those of all ranks' images and the loss is a local mean; every rank sees
    all super-classes and holds all classifiers. With sharding=fsdp those of a super-class belong to
    one rank or to a group of ranks, as in the official code: `divide` puts the images of each
    micro-batch of all ranks in the order of their super-classes, so that a rank sees its own alone.
    Loss and gradients stay the same, as each step has the same images with the same turns (but an
    image that a micro-batch has in two turns may exchange the views of both).
    An image in the place of a broken one counts on the lower level if its super-cluster is right.
    Reference: Caron et al., ICCV 2019, arXiv:1905.01278.
    """

    parts: ClassVar[frozenset[str]] = frozenset({"head", "loss", "assigner"})
    whole: ClassVar[tuple[str, ...]] = ("head.upper",)
    divided: ClassVar[tuple[str, ...]] = ("head.lower",)
    needs_epochs: ClassVar[bool] = True
    chooses_samples: ClassVar[bool] = True

    head: HierarchicalClassifierHead
    labels: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """DeeperCluster's own numbers."""

        every_epochs: int = 3
        """Epochs from one clustering to the next (official code: 3)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            if self.every_epochs < 1:
                yield "every_epochs", f"must be 1 or more, got {self.every_epochs}"

    def __init__(
        self,
        config: Config,
        *,
        backbone: nn.Module,
        head: HierarchicalClassifierHead,
        loss: nn.Module,
        assigner: HierarchicalKMeans,
        facts: DataFacts,
    ) -> None:
        super().__init__()
        self.config, self.facts, self.assigner = config, facts, assigner
        self.backbone, self.head, self.loss = backbone, head, loss
        check_assigner(assigner, HierarchicalKMeans, example="hierarchical_kmeans")
        _check_head(head, assigner, facts)
        self.num_clusters = head.super_clusters * head.sub_clusters
        self.register_buffer("labels", torch.full((facts.num_samples,), NO_LABEL))
        self._started: list[nn.Linear] = []
        self._position = 0
        self._run = 1  # images of one super-class that follow each other

    def divide(self) -> None:
        """Give every rank the images of the super-classes whose classifiers it holds."""
        self.head.divide()
        images = self.facts.micro_batch_size * comm.world_size()
        self._run, rest = divmod(images, self.head.super_classes)
        if rest:
            raise ConfigError(
                f"batch_size: micro-batches of {images} images over all processes do not divide "
                f"into {self.head.super_classes} super-classes, as sharding=fsdp needs; give a "
                f"multiple of {self.head.super_classes} x accumulate_steps, or set sharding=none"
            )

    def start_epoch(self, progress: Progress, passes: Passes) -> dict[str, float]:
        """Cluster all images and start the classifiers again, where it is time."""
        self._started = []
        if progress.epoch % self.config.every_epochs:
            return {}
        former = self.labels.clone()
        features, indices = encoded(self.backbone, passes.central)
        codes = self.assigner.assign(
            features, num_clusters=self.num_clusters, seed=self._seed(progress, CLUSTERING)
        )
        self.labels.copy_(labels_of_all(codes.labels, indices, len(self.labels)))
        # With one super-cluster the super-classes are the rotations, which keep their meaning.
        keeps = progress.epoch > 0 and self.head.super_clusters == 1
        self._started = [self.head.lower] if keeps else [self.head.upper, self.head.lower]
        self.head.reset(self._started, self._seed(progress, CLASSIFIER))
        return {**codes.scalars, **self._agreement(former)}

    def renewed(self) -> Iterator[nn.Parameter]:
        """The classifiers' weights, whose outputs mean other clusters than before."""
        for layer in self._started:
            yield from layer.parameters()

    def epoch_order(self, progress: Progress) -> np.ndarray:
        """A run of images of each super-class in turn, every cluster within it equally often."""
        head, labels = self.head, self.labels.cpu().numpy()
        positions = self.facts.steps_per_epoch * self.facts.batch_size
        rounds = -(-positions // (head.super_classes * self._run))
        order = np.empty((rounds, head.super_classes, self._run), dtype=np.int64)
        for number in range(head.super_classes):
            within = labels // head.sub_clusters == number % head.super_clusters
            random = np.random.RandomState(self._seed(progress, ORDER, number))
            groups = np.where(within, labels, NO_LABEL)
            order[:, number] = equal_draws(groups, rounds * self._run, random).reshape(rounds, -1)
        return order.ravel()[:positions]

    def before_step(self, progress: Progress, micro_batches: Sequence[Batch]) -> None:
        """Remember where in the epoch's order the step begins."""
        self._position = progress.epoch_step * self.facts.batch_size

    def forward(self, batch: Batch, micro_step: int) -> MethodOutput:
        """Loss of one micro-batch."""
        head, count = self.head, len(batch.views)
        places = self._places(len(batch), micro_step, batch.indices.device)
        turns = places // head.super_clusters
        views = [each_turned(view, turns) for view in batch.views]
        labels = self.labels[batch.indices]  # [B]
        upper = turns * head.super_clusters + labels // head.sub_clusters
        lower = torch.where(upper == places, labels % head.sub_clusters, NO_LABEL)
        output = head(multi_crop_features(self.backbone, views), places.repeat(count))
        losses = [
            self.loss(scores, targets, count)
            for scores, targets in zip(output.scores, (upper, lower), strict=True)
        ]
        right = output.scores[0].detach().argmax(dim=1) == upper.repeat(count)
        return MethodOutput(
            loss=losses[0] + losses[1],
            scalars={"super_class_accuracy": right.float().mean()},
            embeddings=output.embeddings.detach(),
            codes=functional.one_hot(labels, self.num_clusters).float(),
        )

    def after_backward(self, progress: Progress) -> None:
        """Turn a mean over all images into one over those of a classifier's super-class."""
        for parameter in self.head.lower.parameters():
            if parameter.grad is not None:
                # Of divided classifiers it is still the sum over ranks.
                ranks = comm.world_size() if is_sharded(parameter) else 1
                local(parameter.grad).mul_(self.head.super_classes / ranks)

    def derived_numbers(self) -> dict[str, str]:
        """How many classes there are, and what their weights take."""
        head, ranks = self.head, comm.world_size() if is_sharded(self.head.lower.weight) else 1
        size = head.lower.weight.numel() * 4 / 1e9 / ranks
        among = f" / {ranks} ranks" if ranks > 1 else ""
        return {
            "super_classes": f"{head.rotations} rotations x {head.super_clusters} super-clusters "
            f"= {head.super_classes}",
            "clusters": f"{head.super_clusters} x {head.sub_clusters} = {self.num_clusters}",
            "classifier_gb": f"{head.super_classes} x {head.sub_clusters} x {head.output_dim} x 4 "
            f"bytes / 10^9{among} = {size:.3g}",
        }

    def _places(self, rows: int, micro_step: int, device: torch.device) -> Tensor:
        """Super-classes [B] of this rank's images, by their positions in the epoch's order."""
        place = micro_step * comm.world_size() + comm.rank()
        positions = self._position + place * rows + torch.arange(rows, device=device)
        return positions // self._run % self.head.super_classes

    def _agreement(self, former: Tensor) -> dict[str, float]:
        """Of the labels on both levels with the former ones, if there are any."""
        if (former == NO_LABEL).all():
            return {}
        size = self.head.sub_clusters
        return {
            "nmi": normalized_mutual_information(self.labels, former),
            "super_nmi": normalized_mutual_information(self.labels // size, former // size),
        }

    def _seed(self, progress: Progress, *purpose: int) -> int:
        return mix(self.facts.seed, progress.epoch, *purpose) % 2**32


def _check_head(
    head: HierarchicalClassifierHead, assigner: HierarchicalKMeans, facts: DataFacts
) -> None:
    """The head has the super-clusters that the assigner finds, and images for its clusters."""
    if not isinstance(head, HierarchicalClassifierHead):
        raise ConfigError(
            f"head: deepercluster classifies on two levels, and {type(head).__name__} does not; "
            "use head=hierarchical_classifier"
        )
    if assigner.config.super_clusters != head.super_clusters:
        raise ConfigError(
            f"assigner.super_clusters: {assigner.config.super_clusters}, but the head has "
            f"{head.super_clusters}; give both the same number"
        )
    clusters = head.super_clusters * head.sub_clusters
    if clusters > facts.num_samples:
        raise ConfigError(
            f"head.sub_clusters: {head.super_clusters} x {head.sub_clusters} = {clusters} clusters "
            f"of {facts.num_samples} training images; a cluster needs several, so give fewer"
        )
