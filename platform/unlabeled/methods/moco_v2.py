"""MoCo-v2: recognise the teacher's key of an image among those of many others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlabeled.config.ranges import at_least
from unlabeled.data.randomness import mix
from unlabeled.data.types import Batch
from unlabeled.distributed import comm
from unlabeled.distributed.batch_norm import normalises_part_of_the_rows
from unlabeled.errors import ConfigError
from unlabeled.methods.base import DataFacts, Method, MethodOutput, Progress
from unlabeled.methods.key_queue import KeyQueue
from unlabeled.methods.multi_crop import multi_crop_features
from unlabeled.methods.requirements import check_assign_crops, check_two_views
from unlabeled.methods.teacher import Teacher
from unlabeled.models.heads.projection import ProjectionHead
from unlabeled.registry import register

PAPER_QUEUE = 65_536


@register("method", "moco_v2")
class MoCoV2(Method):
    """Momentum contrast with an MLP head.

    Keys k = teacher(key crops), queries q = student(other crops); the loss is InfoNCE of every
    query with the keys of its image, against a queue of the keys of past batches of all ranks.
    Official: the first crop asks for the second. `crops_for_keys: [0, 1]` is the symmetric loss; of
    more crops, each that is no lone key crop is a query.
    Shuffled batch normalisation: the images of the teacher's pass are permuted over the groups that
    batch normalisation sees, and its keys back, so that no group tells a key by its company. A
    group is what one rank holds, as in the official code, or a part of it (`batch_norm_groups`);
    the permutation is a function of (seed, step). Where every layer sees all rows (synchronised, or
    without batch normalisation) nothing is split or permuted.
    DDP: the queue is global and the same on all ranks. Ranks are equal to one rank with the same
    `batch_norm_groups` in loss and gradient.
    Accumulation: keys enter the queue after the step, so micro-batches see the same queue.
    References: He et al., CVPR 2020; Chen et al. 2020, arXiv 2003.04297.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """MoCo-v2's own numbers."""

        momentum: float = 0.999
        """Share of the teacher that an update keeps."""
        queue_samples: int | None = None
        """Keys of past batches, over all ranks; null: 65536 (the paper's), or where that is less a
        quarter of the images, but a batch."""
        crops_for_keys: tuple[int, ...] = (1,)
        """Views that the teacher sees."""
        batch_norm_groups: int | None = None
        """Parts of the micro-batch of all ranks that batch normalisation sees, each alone; null:
        one a rank (official: 8 GPUs)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            if not 0 <= self.momentum < 1:
                yield "momentum", f"must lie in [0, 1), got {self.momentum}; MoCo uses 0.999"
            yield from at_least(self, 1, "queue_samples", "batch_norm_groups")

    def __init__(
        self,
        config: Config,
        *,
        backbone: nn.Module,
        head: ProjectionHead,
        loss: nn.Module,
        assigner: nn.Module | None = None,
        facts: DataFacts,
    ) -> None:
        super().__init__()
        self.config, self.facts = config, facts
        self.backbone, self.head, self.loss = backbone, head, loss
        check_two_views(facts, "moco_v2 tells an image by the key of another view")
        check_assign_crops(config.crops_for_keys, facts, field="crops_for_keys")
        keys, views = config.crops_for_keys, range(len(facts.views))
        self.query_crops = [v for v in views if keys != (v,)]
        self.teacher = Teacher(backbone, head)
        self._block = facts.micro_batch_size * comm.world_size()
        few = max(facts.num_samples // 4, self._block)
        self._wanted = config.queue_samples or min(PAPER_QUEUE, few)
        self.queue = KeyQueue(wanted=self._wanted, block=self._block, dim=head.output_dim)
        self._parts = _parts_of_a_rank(config.batch_norm_groups, self._block)
        self._step = 0
        self._new_keys: list[Tensor] = []

    def derived_numbers(self) -> dict[str, str]:
        """The queue after rounding, and what batch normalisation sees."""
        rows = self._block // (self._parts * comm.world_size())
        return {
            "queue": f"{self._wanted} // {self._block} x {self._block} = {self.queue.length}",
            "batch_norm_groups": f"{self._parts} x {comm.world_size()} of {rows} images",
        }

    def before_step(self, progress: Progress, micro_batches: Sequence[Batch]) -> None:
        """Remember the step, of which the permutations are functions."""
        self._step, self._new_keys = progress.step, []

    def forward(self, batch: Batch, micro_step: int) -> MethodOutput:
        """Loss of one micro-batch; its keys wait for the end of the step."""
        keys = {crop: self._keys(batch, micro_step, crop) for crop in self.config.crops_for_keys}
        self._new_keys += keys.values()
        queries = self._in_groups(self._student, [batch.views[v] for v in self.query_crops])
        own = slice(comm.rank() * len(batch), (comm.rank() + 1) * len(batch))
        loss = self.loss(
            queries, self.query_crops, {crop: k[own] for crop, k in keys.items()}, self.queue.keys
        )
        return MethodOutput(loss=loss, embeddings=queries.detach())

    def after_update(self, progress: Progress) -> None:
        """The teacher follows, and the keys of the step enter the queue."""
        self.teacher.update(self.backbone, self.head, self.config.momentum)
        for keys in self._new_keys:
            self.queue.push(keys)
        self._new_keys = []

    @property
    def _groups_differ(self) -> bool:
        """Whether what a layer makes of an image depends on the group that it is in."""
        return normalises_part_of_the_rows(self.teacher)

    def _student(self, views: Sequence[Tensor]) -> Tensor:
        embeddings: Tensor = self.head(multi_crop_features(self.backbone, views)).embeddings
        return embeddings

    def _teach(self, views: Sequence[Tensor]) -> Tensor:
        embeddings: Tensor = self.teacher(views).embeddings
        return embeddings

    @torch.no_grad()
    def _keys(self, batch: Batch, micro_step: int, crop: int) -> Tensor:
        """The keys of a crop of all ranks' images, [W*B, D], in the order of the images."""
        images, ranks = batch.views[crop], comm.world_size()
        if ranks * self._parts == 1 or not self._groups_differ:
            return comm.all_gather(self._in_groups(self._teach, [images]))
        generator = torch.Generator().manual_seed(
            mix(self.facts.seed, self._step, micro_step, crop)
        )
        order = torch.randperm(len(batch) * ranks, generator=generator).to(images.device)
        strangers = comm.all_gather(images.contiguous())[order.view(ranks, -1)[comm.rank()]]
        if images.is_contiguous(memory_format=torch.channels_last):
            strangers = strangers.contiguous(memory_format=torch.channels_last)
        permuted = comm.all_gather(self._in_groups(self._teach, [strangers]))
        keys = torch.empty_like(permuted)
        keys[order] = permuted
        return keys

    def _in_groups(
        self, network: Callable[[Sequence[Tensor]], Tensor], views: Sequence[Tensor]
    ) -> Tensor:
        """`network` of each group of images alone; rows [V*B, D], crop-major, as of all at once."""
        parts = self._parts if self._groups_differ else 1
        found = [network(group) for group in zip(*(v.chunk(parts) for v in views), strict=True)]
        by_view = [torch.unflatten(r, 0, (len(views), -1)) for r in found]  # [V, B / parts, D]
        return torch.cat(by_view, dim=1).flatten(0, 1)


def _parts_of_a_rank(groups: int | None, block: int) -> int:
    """Groups of batch normalisation in a rank's share of a block of images."""
    ranks = comm.world_size()
    groups = ranks if groups is None else groups
    if groups % ranks or block % groups:
        raise ConfigError(
            f"method.batch_norm_groups: {block} images of a micro-batch on {ranks} processes do "
            f"not make {groups} equal groups; give a multiple of {ranks} that divides {block}"
        )
    return groups // ranks
