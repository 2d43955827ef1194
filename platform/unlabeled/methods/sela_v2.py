"""SeLa-v2: balanced labels of the whole data set by Sinkhorn-Knopp, prototypes learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from unlabeled.config.ranges import at_least
from unlabeled.methods.base import Progress
from unlabeled.methods.offline_clustering import OfflineClustering
from unlabeled.methods.requirements import freeze_steps
from unlabeled.registry import register


@register("method", "sela_v2")
class SeLaV2(OfflineClustering):
    """Classify every view into the balanced cluster of its image.

    As DeepCluster-v2, but labels come from a Sinkhorn-Knopp assignment of the whole data set to the
    current prototypes, and prototypes are learned by gradient descent (normalised before every
    step). The paper gives no code for it: what no source fixes (epsilon, stopping rule) is our
    definition, see the assigner `sinkhorn_dataset`.
    References: Asano et al., ICLR 2020; Caron et al., NeurIPS 2020, appendix D.2.
    """

    learns_prototypes: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """SeLa-v2's own numbers."""

        crops_for_assign: tuple[int, ...] = (0, 1)
        """Views whose embeddings are stored and assigned; the global crops."""
        freeze_prototypes_steps: int | None = None
        """Steps during which prototypes get no gradient; null: one epoch (SwAV's practice)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from at_least(self, 0, "freeze_prototypes_steps")

    config: Any

    def after_backward(self, progress: Progress) -> None:
        """No gradient for frozen prototypes."""
        if progress.step < freeze_steps(self.config.freeze_prototypes_steps, self.facts):
            for parameter in self.head.prototypes.parameters():
                parameter.grad = None
