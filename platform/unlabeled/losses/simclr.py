"""SimCLR's contrastive loss for any number of crops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from unlabeled.distributed import comm
from unlabeled.losses.info_nce_blocks import negatives_logsumexp
from unlabeled.losses.precision import at_least_float32, without_autocast
from unlabeled.registry import register


@register("loss", "simclr")
class SimCLRLoss(nn.Module):
    """InfoNCE of every crop with every other crop of its image, against all crops of other images.

    L = 1/(N (V-1)) sum_i sum_{p in P(i)} -log[ e^{s_ip} / (e^{s_ip} + sum_{j in N(i)} e^{s_ij}) ],
    s_ij = z_i . z_j / tau; P(i): the V-1 other crops of i's image; N(i): all crops of all other
    images. Other positives stay out of a positive's denominator, and V = 2 is NT-Xent exactly.
    Shapes: embeddings [V*B, D], L2-normalised, crop-major. An image that is alone in the batch has
    no negatives, loss 0 and a zero gradient.
    DDP: anchors are this rank's crops, negatives those of all ranks (equal batches); the gather
    sends gradients home, so DDP's average is the exact gradient of the mean of the ranks' losses.
    Memory: linear in the number of crops, see `block_rows`.
    Reference: Caron et al. 2020, appendix D, equation (7); Chen et al. 2020, section 2.1.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the loss."""

        temperature: float = 0.1
        """Divides the cosine similarities (SimCLR, section 5.1: 0.1 at its best)."""

        negatives: Literal["global", "local"] = "global"
        """Negatives from all ranks (equation 7), or from this rank only (as in VISSL)."""

        block_rows: int = 256
        """Anchors per block; a block takes 4 * block_rows * (crops of the global batch) bytes."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if self.temperature <= 0:
                yield "temperature", f"must be positive, got {self.temperature}; SimCLR uses 0.1"
            if self.block_rows < 1:
                yield "block_rows", f"must be at least 1, got {self.block_rows}; 256 suits most"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.negatives = config.negatives
        self.block_rows = config.block_rows

    def forward(
        self,
        embeddings: Tensor,
        num_views: int,
        gather: Callable[[Tensor], Tensor] = comm.all_gather_with_gradient,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> Tensor:
        """The loss of this rank's embeddings [V*B, D]; rank and world size default to comm's."""
        assert num_views > 1 and len(embeddings) % num_views == 0, "need V > 1 rows per image"
        z = at_least_float32(embeddings)
        if self.negatives == "local":
            candidates, rank, world_size = z, 0, 1
        else:
            candidates = gather(z)  # [W*V*B, D], rank by rank
            rank = comm.rank() if rank is None else rank
            world_size = comm.world_size() if world_size is None else world_size
        assert len(candidates) == world_size * len(z), "ranks must hold equally many crops"
        own = same_image_rows(len(z), num_views, rank, z.device)
        negatives = negatives_logsumexp(z, candidates, own, self.temperature, self.block_rows)
        return self._mean_over_positives(z, negatives, num_views)

    def _mean_over_positives(self, z: Tensor, negatives: Tensor, num_views: int) -> Tensor:
        by_image = z.reshape(num_views, -1, z.shape[1]).transpose(0, 1)  # [B, V, D]
        with without_autocast(z):
            positives = by_image @ by_image.transpose(1, 2) / self.temperature  # [B, V, V]
        margin = negatives.reshape(num_views, -1).T[:, :, None] - positives
        losses = torch.logaddexp(margin, margin.new_zeros(()))  # log(1 + e^{negatives - positive})
        itself = torch.eye(num_views, dtype=torch.bool, device=z.device)
        return losses[:, ~itself].mean()


def same_image_rows(count: int, num_views: int, rank: int, device: torch.device) -> Tensor:
    """For each of a rank's `count` crop-major rows, the gathered rows of its image: [count, V]."""
    images = count // num_views
    image = torch.arange(count, device=device) % images
    views = torch.arange(num_views, device=device) * images
    return rank * count + image[:, None] + views[None, :]
