"""BYOL: predict the teacher's projection of one view from another, without any negatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from torch import nn

from unlabeled.data.types import Batch
from unlabeled.errors import ConfigError
from unlabeled.methods.base import DataFacts, Method, MethodOutput, Progress
from unlabeled.methods.multi_crop import multi_crop_features
from unlabeled.methods.requirements import check_assign_crops, check_two_views
from unlabeled.methods.teacher import Teacher, cosine_momentum
from unlabeled.models.heads.mlp import unit_rows
from unlabeled.models.heads.projection import ProjectionHead
from unlabeled.registry import Component, register


def _predictor() -> Component:
    fields = ProjectionHead.Config(batch_norm="hidden", unit_norm=False)
    return Component("head", "projection", fields)


@register("method", "byol")
class BYOL(Method):
    """Bootstrap your own latent.

    p_v = predictor(head(backbone(view v))), t_i = teacher(view i): the loss is the distance on the
    unit sphere between every p_v and the targets t_i of other views, summed over the target crops.
    The teacher follows backbone and head with a momentum that rises from `momentum` to 1 as half a
    cosine; the predictor is the student's alone, and is thrown away with the head.
    Views of equal size share a forward pass, so batch normalisation sees them together (the
    official code passes them one by one); local crops predict only.
    DDP: the loss is a local mean and gradients are averaged. With synchronised batch normalisation,
    as the paper has it, ranks are equal to one rank in loss and gradient.
    Reference: Grill et al., NeurIPS 2020.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """BYOL's own numbers."""

        momentum: float = 0.99
        """Share of the teacher that the first update keeps (300 epochs: 0.99, 1000: 0.996)."""
        crops_for_targets: tuple[int, ...] = (0, 1)
        """Views that the teacher sees; the global crops."""
        predictor: Annotated[Component, "head"] = field(default_factory=_predictor)
        """From the student's projections to the teacher's."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            if not 0 <= self.momentum <= 1:
                yield "momentum", f"must lie in [0, 1], got {self.momentum}; BYOL uses 0.996"

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
        check_two_views(facts, "byol predicts the projection of one view from another")
        check_assign_crops(config.crops_for_targets, facts, field="crops_for_targets")
        self.predictor: ProjectionHead = config.predictor.build(
            feature_dim=head.output_dim, num_classes=facts.num_classes
        )
        if self.predictor.output_dim != head.output_dim:
            raise ConfigError(
                f"method.predictor.output_dim: {self.predictor.output_dim} numbers cannot be "
                f"compared with the head's {head.output_dim}; give both the same output_dim"
            )
        self.teacher = Teacher(backbone, head)

    def forward(self, batch: Batch, micro_step: int) -> MethodOutput:
        """Loss of one micro-batch."""
        projections = self.head(multi_crop_features(self.backbone, batch.views)).embeddings
        predictions = self.predictor(projections).embeddings  # [V*B, D]
        crops = self.config.crops_for_targets
        targets = self.teacher([batch.views[i] for i in crops]).embeddings
        loss = self.loss(
            predictions,
            dict(zip(crops, targets.chunk(len(crops)), strict=True)),
            len(batch.views),
        )
        return MethodOutput(loss=loss, embeddings=unit_rows(projections.detach()))

    def after_update(self, progress: Progress) -> None:
        """The teacher follows."""
        self.teacher.update(
            self.backbone, self.head, cosine_momentum(progress, self.config.momentum)
        )
