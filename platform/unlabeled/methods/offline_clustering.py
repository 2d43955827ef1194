"""What DeepCluster-v2 and SeLa-v2 share: codes of the whole data set, made once an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unlabeled.assigners.base import OfflineAssigner
from unlabeled.data.types import Batch
from unlabeled.distributed import comm
from unlabeled.distributed.rank_rows import RankRows
from unlabeled.losses.labelled_rows import NO_LABEL
from unlabeled.methods.base import DataFacts, Method, MethodOutput, Pass, Passes, Progress
from unlabeled.methods.multi_crop import multi_crop_features
from unlabeled.methods.requirements import (
    check_assign_crops,
    check_assigner,
    check_prototypes,
)
from unlabeled.models.heads.prototypes import PrototypesHead


class OfflineClustering(Method):
    """Classify every view into its image's cluster of the last epoch.

    bank_features: [n_assign, slots, D] unit embeddings of the assign crops, overwritten slot by
    slot during the epoch; bank_indices: [slots] their images; labels: [H, N] one clustering per
    prototype set. Before the first epoch one pass of the data fills the bank. Prototype set h is
    clustered from the bank of assign crop h mod n_assign. Each rank holds the rows of the images
    that it was given.
    """

    parts: ClassVar[frozenset[str]] = frozenset({"head", "loss", "assigner"})
    whole: ClassVar[tuple[str, ...]] = ("head.prototypes",)
    needs_epochs: ClassVar[bool] = True
    learns_prototypes: ClassVar[bool]

    head: PrototypesHead
    bank_features: Tensor
    bank_indices: Tensor
    bank_filled: Tensor
    labels: Tensor

    def __init__(
        self,
        config: Any,
        *,
        backbone: nn.Module,
        head: PrototypesHead,
        loss: nn.Module,
        assigner: OfflineAssigner,
        facts: DataFacts,
    ) -> None:
        super().__init__()
        self.config, self.facts, self.assigner = config, facts, assigner
        self.backbone, self.head, self.loss = backbone, head, loss
        check_assign_crops(config.crops_for_assign, facts)
        check_prototypes(head, facts)
        check_assigner(assigner, OfflineAssigner, example="spherical_kmeans")
        slots = facts.steps_per_epoch * (facts.batch_size // comm.world_size())
        crops = len(config.crops_for_assign)
        self.register_buffer("bank_features", torch.zeros(crops, slots, head.output_dim))
        self.register_buffer("bank_indices", torch.zeros(slots, dtype=torch.int64))
        self.register_buffer("bank_filled", torch.zeros((), dtype=torch.bool))
        sets = len(head.prototypes)
        self.register_buffer("labels", torch.full((sets, facts.num_samples), NO_LABEL))
        block = facts.micro_batch_size * comm.world_size()
        self.rank_buffers = {
            "bank_features": RankRows(axis=1, block=block),
            "bank_indices": RankRows(axis=0, block=block),
        }
        self.head.prototypes.requires_grad_(self.learns_prototypes)
        self._slot = 0

    def start_epoch(self, progress: Progress, passes: Passes) -> dict[str, float]:
        """Fill the banks if they are empty, then cluster them."""
        with torch.no_grad():
            if not self.bank_filled:
                self._fill(passes.augmented)
            if self.learns_prototypes:
                self.head.normalize_prototypes()
            numbers: dict[str, float] = {}
            for number, prototypes in enumerate(self.head.prototype_weights()):
                for key, value in self._cluster(number, prototypes, progress.epoch).items():
                    numbers[f"{key}_{number}"] = value
        return numbers

    def before_step(self, progress: Progress, micro_batches: Sequence[Batch]) -> None:
        """Remember which bank slots the step writes."""
        if self.learns_prototypes:
            self.head.normalize_prototypes()
        self._slot = progress.epoch_step * sum(len(batch) for batch in micro_batches)

    def forward(self, batch: Batch, micro_step: int) -> MethodOutput:
        """Loss of one micro-batch against last epoch's clusters; its embeddings enter the bank."""
        output = self.head(multi_crop_features(self.backbone, batch.views))
        size = len(batch)
        embeddings = output.embeddings.detach()  # [V*B, D]
        start = self._slot + micro_step * size
        crops = [embeddings[i * size : (i + 1) * size] for i in self.config.crops_for_assign]
        self._store(start, batch.indices, crops)
        targets = self.labels[:, batch.indices]  # [H, B]
        loss = self.loss(output.scores, targets, len(batch.views))
        known = (targets != NO_LABEL).float().mean()
        return MethodOutput(
            loss=loss,
            scalars={"labelled_share": known},
            embeddings=embeddings,
            codes=self._one_hot(targets[0], output.scores[0].shape[1]),
        )

    def _fill(self, augmented: Pass) -> None:
        """Each assign crop is forwarded on its own (official code), in training mode."""
        start = 0
        for batch in augmented():
            crops = [
                self.head(self.backbone(batch.views[i]).float()).embeddings
                for i in self.config.crops_for_assign
            ]
            self._store(start, batch.indices, crops)
            start += len(batch)
        self.bank_filled.fill_(True)

    def _store(self, start: int, indices: Tensor, crops: Sequence[Tensor]) -> None:
        stop = start + len(indices)
        self.bank_indices[start:stop] = indices
        for n, rows in enumerate(crops):
            self.bank_features[n, start:stop] = rows.float()

    def _cluster(self, number: int, prototypes: Tensor, epoch: int) -> dict[str, float]:
        """Cluster one bank; every image that any rank saw gets its label."""
        codes = self.assigner.assign(
            self.bank_features[number % len(self.bank_features)],
            num_clusters=len(prototypes),
            # A prime larger than any number of prototype sets keeps (epoch, set) pairs apart.
            seed=self.facts.seed + 10_007 * epoch + number,
            prototypes=prototypes.detach(),
        )
        if codes.centroids is not None:
            prototypes.copy_(codes.centroids)
        indices, labels = comm.all_gather(self.bank_indices), comm.all_gather(codes.labels)
        last = last_places(indices, self.labels.shape[1])
        self.labels[number].fill_(NO_LABEL)
        self.labels[number][indices[last]] = labels[last]
        return dict(codes.scalars)

    @staticmethod
    def _one_hot(targets: Tensor, num_clusters: int) -> Tensor:
        known = targets[targets != NO_LABEL]
        return torch.nn.functional.one_hot(known, num_clusters).float()


def last_places(indices: Tensor, num_samples: int) -> Tensor:
    """Where each number among `indices` [n], all below `num_samples`, stands for the last time.

    An image that stands in for one that cannot be decoded is in the banks twice, and on a GPU a
    plain assignment would let chance choose between its labels.
    """
    places = torch.arange(len(indices), device=indices.device)
    last = torch.full((num_samples,), -1, device=indices.device)
    last.scatter_reduce_(0, indices, places, "amax")
    return last[last >= 0]
