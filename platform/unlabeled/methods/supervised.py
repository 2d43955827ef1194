"""Supervised classification: the baseline every table needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from unlabeled.data.types import Batch
from unlabeled.errors import ConfigError
from unlabeled.methods.base import DataFacts, Method, MethodOutput
from unlabeled.methods.multi_crop import multi_crop_features
from unlabeled.registry import register


@register("method", "supervised")
class Supervised(Method):
    """Cross-entropy between a linear classifier of every view and the image's label.

    L = mean over views and images of CE(W f(view) + b, label). Local mean; DDP averages gradients.
    Needs labels: a data set without any is refused. The views are those of the transform, so the
    baseline sees the same crops as the self-supervised methods.
    Reference: the supervised multi-crop row of Caron et al., NeurIPS 2020, figure 3.
    """

    needs_labels: ClassVar[bool] = True

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
        if facts.num_classes < 2:
            raise ConfigError(
                f"method: supervised needs labels of 2 or more classes, the data set has "
                f"{facts.num_classes}; give labelled data or a self-supervised method"
            )

    def forward(self, batch: Batch, micro_step: int) -> MethodOutput:
        """Loss of one micro-batch."""
        output = self.head(multi_crop_features(self.backbone, batch.views))
        loss = self.loss(output.scores[0], batch.labels, len(batch.views))
        return MethodOutput(loss=loss, embeddings=output.embeddings.detach())
