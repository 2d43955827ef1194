"""Cross-entropy over the rows that have a label, zero rather than NaN where none has."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from unlabeled.losses.precision import at_least_float32, without_autocast

NO_LABEL = -100
"""The label of a row that counts for nothing (torch's own `ignore_index`)."""


def mean_cross_entropy(
    logits: Tensor, labels: Tensor, num_views: int, label_smoothing: float = 0.0
) -> Tensor:
    """Mean of -log softmax(logits)[label] over the labelled rows of all views.

    logits [V*B, C], crop-major; labels [B], shared by the V crops of an image. With no labelled row
    at all the result is 0 with a zero gradient, so that a rank without labels still takes part in
    the backward pass of the others.
    """
    assert len(logits) == num_views * len(labels), "logits must hold num_views rows per label"
    with without_autocast(logits):
        total = F.cross_entropy(
            at_least_float32(logits),
            labels.repeat(num_views),  # crop-major, as the logits
            ignore_index=NO_LABEL,
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        return total / (num_views * (labels != NO_LABEL).sum()).clamp(min=1)
