"""SimCLR: agree with the other views of the image, disagree with every other image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from unlabeled.data.types import Batch
from unlabeled.methods.base import DataFacts, Method, MethodOutput
from unlabeled.methods.multi_crop import multi_crop_features
from unlabeled.methods.requirements import check_two_views
from unlabeled.registry import register


@register("method", "simclr")
class SimCLR(Method):
    """Contrastive learning with any number of views.

    z = normalise(head(backbone(view))); the loss is equation (7) of the SwAV paper, which is
    NT-Xent for two views. Negatives come from all ranks (gathered with gradient), so one rank and
    many ranks with the same global batch have the same loss and gradient.
    References: Chen et al., ICML 2020; Caron et al., NeurIPS 2020, appendix A.8.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Nothing of its own: the head and the loss carry every number."""

    def __init__(
        self,
        config: Config,
        *,
        backbone: nn.Module,
        head: nn.Module,
        loss: nn.Module,
        assigner: nn.Module | None = None,
        facts: DataFacts,
    ) -> None:
        super().__init__()
        self.facts = facts
        self.backbone, self.head, self.loss = backbone, head, loss
        check_two_views(facts, "simclr compares views of the same image")

    def forward(self, batch: Batch, micro_step: int) -> MethodOutput:
        """Loss of one micro-batch; negatives: the micro-batch's other images on all ranks."""
        embeddings = self.head(multi_crop_features(self.backbone, batch.views)).embeddings
        loss = self.loss(embeddings, len(batch.views))
        return MethodOutput(loss=loss, embeddings=embeddings.detach())
