"""RotNet: tell by how many quarter turns an image was turned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from unlabeled.config.ranges import at_least
from unlabeled.data.randomness import mix
from unlabeled.data.types import Batch
from unlabeled.errors import ConfigError
from unlabeled.methods.base import DataFacts, Method, MethodOutput, Progress
from unlabeled.methods.multi_crop import multi_crop_features
from unlabeled.methods.quarter_turns import TURNS, all_turns, each_turned
from unlabeled.models.heads.classifier import ClassifierHead
from unlabeled.registry import register


@register("method", "rotnet")
class RotNet(Method):
    """Classify the rotation of every view: 0, 90, 180 or 270 degrees, counterclockwise.

    L = mean over views, images and turns t of CE(classifier(f(view turned by t x 90 degrees)), t).
    Turns are exact, and made after cropping. With turns_per_image 4 a batch holds all four turns of
    each of the V views used, 4 V B images; with 1 each view gets one, a function of (seed, step,
    image).
    Scalar: rotation_accuracy, the share of views whose turn was recognised. Under DDP the loss is a
    local mean and gradients are averaged.
    Reference: Gidaris et al., ICLR 2018, arXiv:1803.07728.
    """

    head: ClassifierHead

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """RotNet's own numbers."""

        turns_per_image: Literal[1, 4] = 4
        """All four turns of an image in one batch (the paper), or one of them (VISSL)."""
        views: int = 1
        """Views of an image that are turned, from the first on (the paper: 1)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from at_least(self, 1, "views")

    def __init__(
        self,
        config: Config,
        *,
        backbone: nn.Module,
        head: ClassifierHead,
        loss: nn.Module,
        assigner: nn.Module | None = None,
        facts: DataFacts,
    ) -> None:
        super().__init__()
        self.config, self.facts = config, facts
        self.backbone, self.head, self.loss = backbone, head, loss
        if not isinstance(head, ClassifierHead) or head.outputs != TURNS:
            raise ConfigError(
                f"head: rotnet tells {TURNS} rotations apart; give head=classifier and "
                f"head.outputs={TURNS}"
            )
        if config.views > len(facts.views):
            raise ConfigError(
                f"method.views: {config.views} views are to be turned, and the transform emits "
                f"{len(facts.views)}; give fewer, or another transform"
            )
        self._step = 0

    def before_step(self, progress: Progress, micro_batches: Sequence[Batch]) -> None:
        """Remember the step, which single turns are drawn for."""
        self._step = progress.step

    def forward(self, batch: Batch, micro_step: int) -> MethodOutput:
        """Loss of one micro-batch."""
        turned, turns = self._turned(batch.views[: self.config.views], batch.indices)
        output = self.head(multi_crop_features(self.backbone, turned))
        logits = output.scores[0]  # [V * turns * B, 4]
        right = (logits.detach().argmax(dim=1) == turns).float().mean()
        return MethodOutput(
            loss=self.loss(logits, turns, 1),
            scalars={"rotation_accuracy": right},
            embeddings=output.embeddings.detach(),
        )

    def _turned(self, views: list[Tensor], indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """The turned views, and the turn of each of their rows, view after view."""
        if self.config.turns_per_image == TURNS:
            turns = torch.arange(TURNS, device=indices.device)
            turns = turns.repeat_interleave(len(indices)).repeat(len(views))
            return [all_turns(view) for view in views], turns
        drawn = [self._drawn(indices, view) for view in range(len(views))]
        turned = [each_turned(view, turns) for view, turns in zip(views, drawn, strict=True)]
        return turned, torch.cat(drawn)

    def _drawn(self, indices: Tensor, view: int) -> Tensor:
        """One turn for each image [B]: it does not depend on who holds the image."""
        words = [mix(self.facts.seed, self._step, index, view) for index in indices.tolist()]
        return torch.tensor([word % TURNS for word in words], device=indices.device)
