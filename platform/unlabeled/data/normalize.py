"""The last step of the input path: uint8 pixels to normalised float32, once, on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.config.schema import Normalization


class Normalize:
    """(x / 255 - mean) / std for uint8 images [B, 3, h, w] on `device`; the result is float32.

    Bit-equal to torchvision's ToTensor + Normalize. `channels_last` chooses the memory format that
    tensor cores prefer; the values are the same.
    """

    def __init__(
        self, normalization: Normalization, device: torch.device, *, channels_last: bool = False
    ) -> None:
        self.normalization = normalization
        self._mean = torch.tensor(normalization.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(normalization.std, device=device).view(1, 3, 1, 1)
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 [B, 3, h, w] of uint8 [B, 3, h, w]."""
        pixels = images.to(torch.float32, memory_format=self._format)
        return pixels.div_(255).sub_(self._mean).div_(self._std)
