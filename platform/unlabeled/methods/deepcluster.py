"""DeepCluster: classify images into the clusters of their own features, found anew every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unlabeled.assigners.base import OfflineAssigner
from unlabeled.clustering.agreement import normalized_mutual_information
from unlabeled.data.randomness import mix
from unlabeled.data.sampling.balanced import equal_draws
from unlabeled.data.types import Batch
from unlabeled.errors import ConfigError
from unlabeled.losses.cross_entropy import CrossEntropyLoss
from unlabeled.losses.labelled_rows import NO_LABEL
from unlabeled.methods.all_images import encoded, labels_of_all
from unlabeled.methods.base import DataFacts, Method, MethodOutput, Passes, Progress
from unlabeled.methods.multi_crop import multi_crop_features
from unlabeled.methods.requirements import check_assigner
from unlabeled.models.heads.classifier import ClassifierHead
from unlabeled.registry import register

CLUSTERING, CLASSIFIER, ORDER = range(3)
"""What a seed of an epoch is for."""


@register("method", "deepcluster")
class DeepCluster(Method):
    """Alternate between clustering the features of all images and predicting the clusters.

    At the start of every epoch: features of the whole data set in evaluation mode and view; their
    clusters, by the assigner; a classifier that starts again; and an order that draws every cluster
    equally often. Then L = mean over views and images of CE(classifier(f(view)), cluster), over the
    clusters that have images.
    labels: [N] the cluster of every image, -100 without one; nmi: how much a clustering has in
    common with the last epoch's. Features are held on the devices, N x feature_dim x 4 bytes over
    all ranks. Under DDP each rank encodes a share of the images, clusters are those of all, and the
    loss is a local mean.
    The official code looks the drawn images up in a list of another order, and so draws clusters
    about as often as they are large; here the draws are the paper's.
    Reference: Caron et al., ECCV 2018, arXiv:1807.05520.
    """

    parts: ClassVar[frozenset[str]] = frozenset({"head", "loss", "assigner"})
    whole: ClassVar[tuple[str, ...]] = ("head.classifier",)
    needs_epochs: ClassVar[bool] = True
    chooses_samples: ClassVar[bool] = True

    head: ClassifierHead
    labels: Tensor
    absent: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Nothing of its own: the head and the assigner carry every number."""

    def __init__(
        self,
        config: Config,
        *,
        backbone: nn.Module,
        head: ClassifierHead,
        loss: nn.Module,
        assigner: OfflineAssigner,
        facts: DataFacts,
    ) -> None:
        super().__init__()
        self.facts, self.assigner = facts, assigner
        self.backbone, self.head, self.loss = backbone, head, loss
        if not isinstance(head, ClassifierHead):
            raise ConfigError(
                f"head: deepcluster needs one that can start again, and {type(head).__name__} "
                "cannot; use head=classifier"
            )
        if head.outputs > facts.num_samples:
            raise ConfigError(
                f"head.outputs: {head.outputs} clusters of {facts.num_samples} training images; "
                "a cluster needs several images, so give fewer"
            )
        if isinstance(loss, CrossEntropyLoss) and loss.label_smoothing > 0:
            raise ConfigError(
                f"loss.label_smoothing: {loss.label_smoothing} asks for outputs without images, "
                "which deepcluster leaves out; use 0"
            )
        check_assigner(assigner, OfflineAssigner, example="kmeans")
        self.register_buffer("labels", torch.full((facts.num_samples,), NO_LABEL))
        # Added to the logits: 0 for a cluster with images, -inf for an output without.
        self.register_buffer("absent", torch.zeros(head.outputs))

    def start_epoch(self, progress: Progress, passes: Passes) -> dict[str, float]:
        """Cluster all images, and start the classifier again."""
        features, indices = encoded(self.backbone, passes.central)
        codes = self.assigner.assign(
            features, num_clusters=self.head.outputs, seed=self._seed(progress, CLUSTERING)
        )
        former = self.labels.clone()
        self.labels.copy_(labels_of_all(codes.labels, indices, len(former)))
        numbers = self._count()
        if (former != NO_LABEL).any():
            numbers["nmi"] = normalized_mutual_information(self.labels, former)
        self.head.reset(self._seed(progress, CLASSIFIER))
        return {**codes.scalars, **numbers}

    def renewed(self) -> Iterator[nn.Parameter]:
        """The classifier's weights, whose outputs mean other clusters than before."""
        return self.head.classifier.parameters()

    def epoch_order(self, progress: Progress) -> np.ndarray:
        """Every cluster equally often."""
        random = np.random.RandomState(self._seed(progress, ORDER))
        return equal_draws(self.labels.cpu().numpy(), self.facts.num_samples, random)

    def forward(self, batch: Batch, micro_step: int) -> MethodOutput:
        """Loss of one micro-batch against this epoch's clusters."""
        output = self.head(multi_crop_features(self.backbone, batch.views))
        targets = self.labels[batch.indices]  # [B]
        loss = self.loss(output.scores[0].float() + self.absent, targets, len(batch.views))
        known = targets[targets != NO_LABEL]
        return MethodOutput(
            loss=loss,
            embeddings=output.embeddings.detach(),
            codes=functional.one_hot(known, self.head.outputs).float(),
        )

    def _count(self) -> dict[str, float]:
        """How many images the clusters have; outputs without any are absent."""
        known = self.labels[self.labels != NO_LABEL]
        counts = torch.bincount(known, minlength=self.head.outputs)
        self.absent.copy_(torch.where(counts > 0, 0.0, -torch.inf))
        return {
            "clusters": float((counts > 0).sum()),
            "largest_cluster": float(counts.max()),
            "labelled_share": len(known) / len(self.labels),
        }

    def _seed(self, progress: Progress, purpose: int) -> int:
        return mix(self.facts.seed, progress.epoch, purpose) % 2**32
