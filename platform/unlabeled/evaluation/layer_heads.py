"""A linear classifier for every layer, and how well each of them does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from unlabeled.evaluation.accuracy import label_ranks, top_accuracy
from unlabeled.evaluation.features import FeatureSet
from unlabeled.evaluation.layers import Shape, Taps

# Test rows classified at once: 1024 x 53,248 float32 (VISSL's seven layers) = 218 MB on the device.
TEST_BLOCK = 1024

Initial = Literal["uniform", "normal"]


class Head(nn.Module):
    """Batch normalisation (or none) and a linear classifier: maps [B, C, h, w] -> scores [B, K].

    Weight and bias are drawn from `seed` and nothing else. uniform: U(-1/sqrt(D), 1/sqrt(D)) with
    D = C*h*w (VISSL: torch's default); normal: weight N(0, 0.01), bias 0 (SwAV eval_linear.py).
    """

    def __init__(
        self,
        shape: Shape,
        num_classes: int,
        batch_norm: bool,
        *,
        seed: int,
        initial: Initial = "uniform",
    ) -> None:
        super().__init__()
        width = math.prod(shape)
        self.norm: nn.Module = nn.BatchNorm2d(shape[0]) if batch_norm else nn.Identity()
        # Made without the default initialisation, which would draw from the global generator.
        self.linear = nn.Linear(width, num_classes, device="meta").to_empty(device="cpu")
        generator, bound = torch.Generator().manual_seed(seed), width**-0.5
        with torch.no_grad():
            if initial == "normal":
                self.linear.weight.normal_(0, 0.01, generator=generator)
                self.linear.bias.zero_()
                return
            for parameter in self.linear.parameters():
                parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, maps: Tensor) -> Tensor:
        """Scores of every class."""
        scores: Tensor = self.linear(self.norm(maps).flatten(1))
        return scores


@torch.no_grad()
def averaged_accuracies(
    heads: Mapping[str, Head], taps: Taps, views: Iterable[FeatureSet], device: torch.device
) -> dict[str, tuple[float, float]]:
    """Top-1 and top-5 of every layer in percent, of class probabilities averaged over the views.

    Each set holds another view of the same images.
    """
    totals: dict[str, Tensor] = {}
    for test in views:
        blocks = [taps.split(rows.to(device)) for rows in torch.split(test.features, TEST_BLOCK)]
        for key, head in heads.items():
            found = torch.cat([head(maps[key]).softmax(dim=1).cpu() for maps in blocks])
            totals[key] = totals[key] + found if key in totals else found
    assert test.labels is not None
    labels = test.labels
    return {
        key: (top_accuracy(scores, labels, 1), top_accuracy(scores, labels, 5))
        for key, scores in totals.items()
    }


@torch.no_grad()
def accuracies(
    heads: Mapping[str, Head], taps: Taps, test: FeatureSet, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Top-1 and top-5 of every layer in percent, a block of rows at a time."""
    assert test.labels is not None
    right = {key: torch.zeros(2, dtype=torch.int64) for key in heads}
    blocks = zip(
        torch.split(test.features, TEST_BLOCK), torch.split(test.labels, TEST_BLOCK), strict=True
    )
    for rows, own in blocks:
        maps, labels = taps.split(rows.to(device)), own.to(device)
        for key, head in heads.items():
            ranks = label_ranks(head(maps[key]), labels)
            right[key] += torch.stack([(ranks < 1).sum(), (ranks < 5).sum()]).cpu()
    share = {key: (100 * counts.double() / len(test)).tolist() for key, counts in right.items()}
    return {key: (top1, top5) for key, (top1, top5) in share.items()}
