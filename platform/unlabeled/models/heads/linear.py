"""The head of the supervised baseline."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from unlabeled.errors import ConfigError
from unlabeled.models.heads.base import HeadOutput
from unlabeled.registry import register


@register("head", "linear")
class LinearHead(nn.Module):
    """One Linear from features to class logits.

    Shapes: features [N, feature_dim] -> embeddings = features, scores = [logits [N, num_classes]].
    Errors: ConfigError for a data set without labels. DDP: rows are independent.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """The head has no fields: its sizes follow from the backbone and the data set."""

    def __init__(self, config: Config, *, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(
                f"head linear: the data set has no labels (num_classes = {num_classes}); "
                "choose one with class labels, or a method that learns without them"
            )
        self.output_dim = feature_dim
        self.classifier = nn.Linear(feature_dim, num_classes)

    def forward(self, features: Tensor) -> HeadOutput:
        """Features unchanged, and their logits as the only scores."""
        return HeadOutput(embeddings=features, scores=[self.classifier(features)])
