"""DINO: predict what a slowly moving teacher says of the image's global views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from unlabeled.assigners.base import BatchAssigner
from unlabeled.config.ranges import at_least
from unlabeled.data.types import Batch
from unlabeled.errors import ConfigError
from unlabeled.losses.normalized_mse import NormalizedMSE
from unlabeled.methods.base import DataFacts, Method, MethodOutput, Passes, Progress
from unlabeled.methods.multi_crop import multi_crop_features
from unlabeled.methods.requirements import check_assigner, opening_steps, short_of_two_epochs
from unlabeled.methods.teacher import Teacher, cosine_momentum
from unlabeled.models.heads.dino import DINOHead
from unlabeled.models.heads.mlp import mlp
from unlabeled.registry import register

OFFICIAL_MOMENTUM = 0.996
"""Of the official recipes, which take 10^5 steps; a teacher of the last 250 of them."""
FEW_STEPS = 2500
"""Where 1 - 10 / steps is that momentum."""


@register("method", "dino")
class DINO(Method):
    """Self-distillation: a student predicts its teacher's codes of the other views.

    L = 1/|G| sum_{i in G} 1/(V-1) sum_{v != i} mean_n CE(q_ni, softmax(s_nv / tau)): the student
    sees all V views, the teacher the global views G alone, and its scores of these, centred and
    sharpened by the assigner, are the codes q. The teacher is an average of past students and what
    the run is for: exports and benchmarks take its backbone.
    With assigner=sinkhorn the batch balances the codes instead of the centre (its `iterations: 1`
    is the softmax over the batch); with loss=normalized_mse and assigner=centered_scores outputs
    are compared instead of distributions.
    Under DDP the loss is a local mean and gradients are averaged; the centre is global, and so are
    the codes of Sinkhorn. Gradient accumulation: a centre moves once a step, by all its
    micro-batches; Sinkhorn balances each micro-batch of all ranks alone.
    Reference: Caron et al., ICCV 2021.
    """

    parts: ClassVar[frozenset[str]] = frozenset({"head", "loss", "assigner"})
    whole: ClassVar[tuple[str, ...]] = ("head.last_layer", "teacher.head.last_layer")
    evaluated: ClassVar[str] = "teacher.backbone"
    head: DINOHead

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """DINO's own numbers."""

        teacher: Literal["momentum", "last_epoch", "last_iteration", "student"] = "momentum"
        """Which student the teacher is: an average of all, that at the end of the last epoch, that
        before the last update, or the present one."""
        momentum: float | None = None
        """Share of itself that the teacher keeps at the first step; null: DINO's 0.996, in runs of
        less than 2500 steps 1 - 10 / steps, so that it averages over a tenth of the run."""
        final_momentum: float = 1.0
        """The same at the end; half a cosine lies between."""
        freeze_last_layer_epochs: int = 1
        """Epochs in which the last layer gets no gradient (DINO: 1; with ViT-B 3); in a run of
        less than two its first hundredth."""
        predictor_hidden_dim: int | None = None
        """Width of the hidden layer of a predictor in the student's head; null: no predictor."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            for name in ("momentum", "final_momentum"):
                value = getattr(self, name)
                if value is not None and not 0 <= value <= 1:
                    yield name, f"must lie between 0 and 1, got {value}"
            yield from at_least(self, 0, "freeze_last_layer_epochs")
            if self.predictor_hidden_dim is not None and self.predictor_hidden_dim < 1:
                yield (
                    "predictor_hidden_dim",
                    f"must be at least 1, or null for no predictor; got "
                    f"{self.predictor_hidden_dim}",
                )

    def __init__(
        self,
        config: Config,
        *,
        backbone: nn.Module,
        head: nn.Module,
        loss: nn.Module,
        assigner: BatchAssigner,
        facts: DataFacts,
    ) -> None:
        super().__init__()
        self.config, self.facts = config, facts
        self.target_views = [n for n, view in enumerate(facts.views) if view.role == "global"]
        _check_parts(head, loss, assigner)
        if not self.target_views or len(facts.views) < 2:
            raise ConfigError(
                f"method: dino predicts global views from others; the transform emits "
                f"{len(facts.views)} views, {len(self.target_views)} of them global: give it 2 or "
                "more with a global one"
            )
        if config.teacher == "last_epoch" and short_of_two_epochs(facts):
            raise ConfigError(
                "method.teacher: last_epoch, but the run is shorter than two epochs; give epochs=2 "
                "or more, or teacher=momentum"
            )
        assert isinstance(head, DINOHead)
        self.backbone, self.head, self.loss, self.assigner = backbone, head, loss, assigner
        self.teacher = Teacher(backbone, head)
        self.freeze_steps = opening_steps(config.freeze_last_layer_epochs, facts)
        self.momentum, self._momentum_arithmetic = _first_momentum(config.momentum, facts)
        self.assigner.begin(head.num_outputs)
        self.predictor: nn.Module | None = None
        if config.predictor_hidden_dim is not None:
            self.predictor = mlp(
                head.output_dim,
                config.predictor_hidden_dim,
                1,
                head.output_dim,
                batch_norm="none",
                activation=nn.GELU,
            )

    def derived_numbers(self) -> dict[str, str]:
        """The length of the freeze, and the teacher's momentum."""
        numbers = {"last_layer_frozen": f"{self.freeze_steps} steps"}
        if self.config.teacher == "momentum":
            numbers["teacher_momentum"] = (
                f"{self._momentum_arithmetic}, to {self.config.final_momentum:g}"
            )
        return numbers

    def start_epoch(self, progress: Progress, passes: Passes) -> dict[str, float]:
        """The student of the last epoch becomes the teacher, where that is the rule."""
        if self.config.teacher == "last_epoch":
            self.teacher.update(self.backbone, self.head, 0.0)
        return {}

    def before_step(self, progress: Progress, micro_batches: Sequence[Batch]) -> None:
        """Tell the assigner where the run stands."""
        self.assigner.before_step(progress)

    def forward(self, batch: Batch, micro_step: int) -> MethodOutput:
        """Loss of one micro-batch."""
        student = self.head(multi_crop_features(self.backbone, batch.views), self.predictor)
        taught = self.teacher([batch.views[view] for view in self.target_views])
        targets = self.assigner(taught.scores[0])  # [G*B, K]
        by_view = dict(zip(self.target_views, targets.split(len(batch)), strict=True))
        return MethodOutput(
            loss=self.loss(student.scores[0], by_view, len(batch.views)),
            embeddings=student.embeddings.detach(),
            codes=targets if self.assigner.makes_codes else None,
        )

    def after_backward(self, progress: Progress) -> None:
        """Freeze the last layer; keep the student before its update, where it is to teach."""
        if progress.step < self.freeze_steps:
            for parameter in self.head.last_layer.parameters():
                parameter.grad = None
        if self.config.teacher == "last_iteration":
            self.teacher.update(self.backbone, self.head, 0.0)

    def after_update(self, progress: Progress) -> None:
        """Move the teacher and what the assigner keeps."""
        self.assigner.after_step()
        if self.config.teacher == "momentum":
            momentum = cosine_momentum(progress, self.momentum, self.config.final_momentum)
            self.teacher.update(self.backbone, self.head, momentum)
        elif self.config.teacher == "student":
            self.teacher.update(self.backbone, self.head, 0.0)


def _first_momentum(given: float | None, facts: DataFacts) -> tuple[float, str]:
    """The momentum at the first step, and how it came about."""
    if given is not None:
        return given, f"{given:g}"
    steps = facts.total_steps
    if steps is None or steps >= FEW_STEPS:
        return OFFICIAL_MOMENTUM, f"{OFFICIAL_MOMENTUM:g}"
    short = max(0.0, 1 - 10 / steps)
    return short, f"1 - 10 / {steps} steps = {short:.4g}"


def _check_parts(head: nn.Module, loss: nn.Module, assigner: object) -> None:
    """The head has a last layer, and the assigner makes what the loss compares."""
    if not isinstance(head, DINOHead):
        raise ConfigError(
            f"head: dino freezes the last layer of its head, and {type(head).__name__} has none; "
            "use head=dino"
        )
    check_assigner(assigner, BatchAssigner, example="centering")
    assert isinstance(assigner, BatchAssigner)
    if isinstance(loss, NormalizedMSE) and assigner.makes_codes:
        raise ConfigError(
            f"assigner: loss=normalized_mse compares outputs, and {type(assigner).__name__} makes "
            "codes of them; use assigner=centered_scores"
        )
    if not isinstance(loss, NormalizedMSE) and not assigner.makes_codes:
        raise ConfigError(
            f"assigner: {type(assigner).__name__} makes no codes, which "
            f"{type(loss).__name__} needs; use assigner=centering, or loss=normalized_mse"
        )
