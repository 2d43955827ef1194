"""What methods that cluster the whole data set ask of it: every image's feature and label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlabeled.distributed import comm
from unlabeled.methods.base import Pass


@torch.no_grad()
def encoded(backbone: nn.Module, central: Pass) -> tuple[Tensor, Tensor]:
    """Features [n, D] float32 of this rank's images in evaluation mode, and which images they are.

    Afterwards the backbone is in the mode in which it was.
    """
    training = backbone.training
    backbone.eval()
    found = [(backbone(batch.views[0]).float(), batch.indices.clone()) for batch in central()]
    backbone.train(training)
    features, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return features, indices


def labels_of_all(clusters: Tensor, indices: Tensor, num_samples: int) -> Tensor:
    """Clusters [n] of this rank's images `indices` [n] -> those of all ranks' images [num_samples].

    Every image is one rank's, so that a sum puts them together; equal on every rank.
    """
    labels = torch.zeros(num_samples, dtype=torch.int64, device=clusters.device)
    labels[indices] = clusters
    return comm.all_reduce_sum(labels)
