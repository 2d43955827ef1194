"""Says in plain words, while the run goes on, when the features are collapsing."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlabeled.config.ranges import at_least
from unlabeled.hooks.base import Hook, Record
from unlabeled.registry import register

if TYPE_CHECKING:
    from unlabeled.engine.trainer import Trainer

log = logging.getLogger(__name__)
REMEDIES = (
    "remedies that the literature names: a lower assigner.epsilon (0.03), a longer "
    "method.freeze_prototypes_steps, hard codes (assigner.hard=true)"
)


@register("hook", "collapse_alarm")
class CollapseAlarm(Hook):
    """Warn when the loss stays at ln K or the effective rank of the embeddings nears 1.

    A uniform prediction over K prototypes has loss ln K (8.006 for 3000); a loss within
    `loss_margin` of it after `patience_epochs` epochs says that nothing is being learned. RankMe
    below `min_rank` says that all images get nearly the same embedding. Reads the meters of the
    epoch, equal on every rank. References: the common issues of the official SwAV code; Garrido
    et al., ICML 2023.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Thresholds."""

        loss_margin: float = 0.01
        """Relative distance to ln K below which the loss counts as stuck."""
        min_rank: float = 2.0
        """Effective rank below which the embeddings count as collapsed."""
        patience_epochs: int = 3
        """Epochs (rounds, where those are shorter) before the first warning."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from at_least(self, 0, "patience_epochs")

    def after_epoch(self, trainer: Trainer, record: Record) -> None:
        """Add the loss relative to ln K to the record, and warn."""
        sizes = [p.out_features for p in getattr(trainer.method.head, "prototypes", ())]
        if sizes:
            uniform = sum(math.log(size) for size in sizes) / len(sizes)
            record["loss_over_ln_k"] = record["loss"] / uniform
        if trainer.step < self.config.patience_epochs * trainer.settings.round_steps:
            return
        if sizes and abs(record["loss_over_ln_k"] - 1) < self.config.loss_margin:
            log.warning(
                "collapse: after %.4g epochs the loss %.3f is still that of a uniform guess over "
                "the prototypes (ln K = %.3f); %s",
                trainer.step / trainer.settings.steps_per_epoch,
                record["loss"],
                uniform,
                REMEDIES,
            )
        rank = record.get("rank_me")
        if rank is not None and rank < self.config.min_rank:
            log.warning(
                "collapse: the embeddings have an effective rank of %.2f, nearly all images look "
                "the same to the model; %s",
                rank,
                REMEDIES,
            )
