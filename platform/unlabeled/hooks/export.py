"""The trained backbone as files that load without this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlabeled.hooks.base import Hook
from unlabeled.models.backbone_files import export_backbone
from unlabeled.registry import register

if TYPE_CHECKING:
    from unlabeled.engine.trainer import Trainer


@register("hook", "export")
class Export(Hook):
    """Write weights/backbone.safetensors and backbone.json when the run ends.

    The JSON names the architecture, the feature dimension and the normalisation, and says how to
    load the weights with torchvision alone. All ranks take part, and rank 0 writes.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Nothing to set."""

    def after_fit(self, trainer: Trainer) -> None:
        """Write both files."""
        config = trainer.config
        export_backbone(
            trainer.method.evaluated_backbone,
            config.backbone,
            trainer.run.weights,
            mean=config.normalization.mean,
            std=config.normalization.std,
            image_size=max(view.size for view in trainer.method.facts.views),
        )
