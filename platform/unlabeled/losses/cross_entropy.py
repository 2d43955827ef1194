"""The supervised baseline's loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from unlabeled.losses.labelled_rows import mean_cross_entropy
from unlabeled.registry import register


@register("loss", "cross_entropy")
class CrossEntropyLoss(nn.Module):
    """Cross-entropy of class logits against human labels, the same label for all crops of an image.

    L = mean_{v,n} -sum_c t_nc log softmax(logits)[v*B+n, c] with t = (1-a) onehot(label) + a/C and
    label smoothing a. Shapes: logits [V*B, C], crop-major; labels [B] int64, -100 where unknown; a
    batch without any label has loss 0 with a zero gradient.
    DDP: mean over this rank's labelled rows; DDP averages over ranks.
    Reference: Szegedy et al. 2016, section 7, for label smoothing.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the loss."""

        label_smoothing: float = 0.0
        """Share of the target spread evenly over all classes, from 0 to 1."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if not 0 <= self.label_smoothing <= 1:
                yield "label_smoothing", f"must lie between 0 and 1, got {self.label_smoothing}"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.label_smoothing = config.label_smoothing

    def forward(self, logits: Tensor, labels: Tensor, num_views: int) -> Tensor:
        """The loss of logits [V*B, C] for labels [B]."""
        return mean_cross_entropy(logits, labels, num_views, self.label_smoothing)
