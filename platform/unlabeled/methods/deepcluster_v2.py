"""DeepCluster-v2: spherical k-means over last epoch's features, centroids as prototypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unlabeled.methods.offline_clustering import OfflineClustering
from unlabeled.registry import register


@register("method", "deepcluster_v2")
class DeepClusterV2(OfflineClustering):
    """Classify every view into the k-means cluster of its image.

    At the start of every epoch the embeddings stored during the last one are clustered; the
    centroids become the prototypes, which receive no gradient. L = 1/H sum_h mean over views and
    images of CE(softmax(z C_h / temperature), label_h). Images that no rank saw last epoch are
    ignored. Under DDP k-means runs on all ranks' banks; the loss is a local mean.
    Reference: Caron et al., NeurIPS 2020, appendix D.1; the official main_deepclusterv2.py.
    """

    learns_prototypes: ClassVar[bool] = False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """DeepCluster-v2's own numbers."""

        crops_for_assign: tuple[int, ...] = (0, 1)
        """Views whose embeddings are stored and clustered; the global crops."""
