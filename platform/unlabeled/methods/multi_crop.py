"""The multi-crop forward pass: one backbone call per resolution, one head call for all crops."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn


def multi_crop_features(backbone: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Pooled features [V*B, feature_dim] of V views [B, 3, h, w], crop-major.

    Row v*B+n is crop v of image n. Views of equal size that follow each other share one backbone
    call, so that batch normalisation sees statistics per resolution (SwAV, section 3.2).
    """
    features = [
        backbone(torch.cat(list(group))) for _, group in groupby(views, key=lambda v: v.shape[-1])
    ]
    return torch.cat([f.float() for f in features])
