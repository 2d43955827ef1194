"""Edges instead of colours: the fixed first layers of DeepCluster's networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

HORIZONTAL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))
CHANNELS = 2


class Sobel(nn.Module):
    """Normalised images [B, 3, h, w] -> [B, 2, h, w]: the grey image's slope along x and along y.

    Grey is the mean of the channels; its surroundings count as zeros. The two 3 x 3 filters are
    Sobel's, falling from left to right and from top to bottom positive. Nothing is trained, and
    nothing is stored in checkpoints.
    Reference: Caron et al. 2018, "Deep Clustering for Unsupervised Learning of Visual Features",
    section 3.3.
    """

    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        horizontal = torch.tensor(HORIZONTAL)
        filters = torch.stack([horizontal, horizontal.T])[:, None]  # [2, 1, 3, 3]
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return conv2d(images.mean(1, keepdim=True), self.filters, padding=1)
