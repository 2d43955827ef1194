"""SwAV: predict the code of one view from another, codes made online by Sinkhorn-Knopp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from unlabeled.assigners.base import OnlineAssigner
from unlabeled.config.ranges import at_least
from unlabeled.data.types import Batch
from unlabeled.distributed import comm
from unlabeled.distributed.rank_rows import RankRows
from unlabeled.methods.base import DataFacts, Method, MethodOutput, Progress
from unlabeled.methods.multi_crop import multi_crop_features
from unlabeled.methods.queue import FeatureQueue
from unlabeled.methods.requirements import (
    check_assign_crops,
    check_assigner,
    check_prototypes,
    check_two_views,
    freeze_steps,
)
from unlabeled.methods.running_statistics import unchanged_running_statistics
from unlabeled.models.heads.prototypes import PrototypesHead
from unlabeled.registry import register


@register("method", "swav")
class SwAV(Method):
    """Swapped prediction between the views of an image.

    L = 1/|A| sum_{i in A} 1/(V-1) sum_{v != i} mean_n CE(q_ni, softmax(z_nv C / temperature)),
    with codes q_i = Sinkhorn(z_i C) over the global batch (and the queue, once it is full) and
    prototypes C normalised before every step. Several prototype sets: the mean of their losses.
    Under DDP the loss is a local mean and gradients are averaged; codes are global.
    Gradient accumulation: with `codes_over: micro_batch` Sinkhorn balances each micro-batch (of all
    ranks) alone; with `accumulated_batch` an extra forward pass without gradient collects the
    scores of the whole step first, so codes are those of the large batch (exactly, where no layer
    mixes the samples of a micro-batch as batch normalisation does).
    Reference: Caron et al., NeurIPS 2020, section 3.
    """

    parts: ClassVar[frozenset[str]] = frozenset({"head", "loss", "assigner"})
    whole: ClassVar[tuple[str, ...]] = ("head.prototypes",)
    head: PrototypesHead

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """SwAV's own numbers."""

        crops_for_assign: tuple[int, ...] = (0, 1)
        """Views whose codes are computed; the global crops."""
        freeze_prototypes_steps: int | None = None
        """Steps in which prototypes get no gradient; null: one epoch (official: one more, 313), in
        a single pass the first hundredth of it."""
        queue_samples: int = 0
        """Features kept over all ranks to balance small batches (3840 at batch 256); 0: off."""
        queue_start_epoch: int = 15
        """First epoch that fills the queue."""
        codes_over: Literal["micro_batch", "accumulated_batch"] = "micro_batch"
        """What Sinkhorn balances when gradients are accumulated."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from at_least(
                self, 0, "freeze_prototypes_steps", "queue_samples", "queue_start_epoch"
            )

    def __init__(
        self,
        config: Config,
        *,
        backbone: nn.Module,
        head: PrototypesHead,
        loss: nn.Module,
        assigner: OnlineAssigner,
        facts: DataFacts,
    ) -> None:
        super().__init__()
        self.config, self.facts = config, facts
        self.backbone, self.head, self.loss, self.assigner = backbone, head, loss, assigner
        check_assign_crops(config.crops_for_assign, facts)
        check_prototypes(head, facts)
        check_assigner(assigner, OnlineAssigner, example="sinkhorn")
        check_two_views(facts, "swav predicts the code of one view from another")
        self.queue = FeatureQueue(
            num_crops=len(config.crops_for_assign),
            global_length=config.queue_samples,
            local_batch=facts.micro_batch_size,
            dim=head.output_dim,
        )
        self.freeze_steps = freeze_steps(config.freeze_prototypes_steps, facts)
        if self.queue.length:
            block = facts.micro_batch_size * comm.world_size()
            self.rank_buffers = {"queue.features": RankRows(axis=1, block=block)}
        self._queue_started = False
        self._codes: list[list[dict[int, Tensor]]] = []

    def derived_numbers(self) -> dict[str, str]:
        """The length of the freeze, and the queue's after rounding."""
        numbers = {"prototypes_frozen": f"{self.freeze_steps} steps"}
        if self.config.queue_samples:
            whole = self.facts.micro_batch_size * comm.world_size()
            numbers["queue_per_rank"] = (
                f"{self.config.queue_samples} // {whole} x {self.facts.micro_batch_size} = "
                f"{self.queue.length}{self._never_filled()}"
            )
        return numbers

    def _never_filled(self) -> str:
        """What a reader should know of a queue that starts behind the end of the run."""
        first = self.config.queue_start_epoch * self.facts.steps_per_epoch
        if self.facts.total_steps is None or first < self.facts.total_steps:
            return ""
        return (
            f", never filled: the run ends before epoch {self.config.queue_start_epoch} "
            "(method.queue_start_epoch)"
        )

    def before_step(self, progress: Progress, micro_batches: Sequence[Batch]) -> None:
        """Normalise the prototypes; make the codes of the step where they span micro-batches."""
        self.head.normalize_prototypes()
        self._queue_started = progress.epoch >= self.config.queue_start_epoch
        self._codes = []
        if self.config.codes_over == "accumulated_batch" and len(micro_batches) > 1:
            with unchanged_running_statistics(self):
                outputs = [self._project(batch) for batch in micro_batches]
            crops = [
                self._assign_crops(*output, len(b))
                for output, b in zip(outputs, micro_batches, strict=True)
            ]
            self._codes = self._split_codes(
                self._make_codes(_concatenate(crops)), len(micro_batches)
            )

    def forward(self, batch: Batch, micro_step: int) -> MethodOutput:
        """Loss of one micro-batch."""
        embeddings, scores = self._project(batch)  # [V*B, D], per set [V*B, K]
        if self._codes:
            codes = self._codes[micro_step]
        else:
            with torch.no_grad():
                codes = self._make_codes(self._assign_crops(embeddings, scores, len(batch)))
        losses = [
            self.loss(set_scores, set_codes, len(batch.views))
            for set_scores, set_codes in zip(scores, codes, strict=True)
        ]
        return MethodOutput(
            loss=torch.stack(losses).mean(),
            embeddings=embeddings.detach(),
            codes=torch.cat(list(codes[0].values())),
        )

    def after_backward(self, progress: Progress) -> None:
        """No gradient, momentum or decay for frozen prototypes."""
        if progress.step < self.freeze_steps:
            for parameter in self.head.prototypes.parameters():
                parameter.grad = None

    def _project(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        output = self.head(multi_crop_features(self.backbone, batch.views))
        return output.embeddings, output.scores

    def _assign_crops(
        self, embeddings: Tensor, scores: list[Tensor], batch_size: int
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Embeddings [B, D] and, per prototype set, scores [B, K] of every assign crop."""
        rows = [slice(i * batch_size, (i + 1) * batch_size) for i in self.config.crops_for_assign]
        return (
            [embeddings[r].detach().float() for r in rows],
            [[s[r].detach() for r in rows] for s in scores],
        )

    def _make_codes(
        self, crops: tuple[list[Tensor], list[list[Tensor]]]
    ) -> list[dict[int, Tensor]]:
        """Codes of every prototype set by assign crop; pushes the embeddings onto the queue."""
        embeddings, scores = crops
        queued = [self.queue.contents(n) for n in range(len(embeddings))]
        codes = []
        for prototypes, set_scores in zip(self.head.prototype_weights(), scores, strict=True):
            made = {}
            for n, crop in enumerate(self.config.crops_for_assign):
                past = queued[n]
                batch_scores = set_scores[n].float()
                if past is not None:
                    batch_scores = torch.cat([past @ prototypes.float().t(), batch_scores])
                made[crop] = self.assigner(batch_scores)[-len(set_scores[n]) :]
            codes.append(made)
        if self._queue_started:
            self.queue.push(embeddings)
        return codes

    def _split_codes(
        self, codes: list[dict[int, Tensor]], parts: int
    ) -> list[list[dict[int, Tensor]]]:
        """Codes of the whole step, cut back into micro-batches."""
        chunks = [{crop: q.chunk(parts) for crop, q in made.items()} for made in codes]
        return [[{c: q[m] for c, q in made.items()} for made in chunks] for m in range(parts)]


def _concatenate(
    parts: list[tuple[list[Tensor], list[list[Tensor]]]],
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Assign crops of several micro-batches, row after row."""
    embeddings = [torch.cat(rows) for rows in zip(*(p[0] for p in parts), strict=True)]
    sets = zip(*(p[1] for p in parts), strict=True)
    return embeddings, [[torch.cat(r) for r in zip(*of_set, strict=True)] for of_set in sets]
