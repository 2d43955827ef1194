"""The teacher of the momentum methods: a copy of the student that follows it slowly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from unlabeled.distributed.shards import local
from unlabeled.methods.base import Progress
from unlabeled.methods.multi_crop import multi_crop_features


class Teacher(nn.Module):
    """An exponential moving average of a student's backbone and head.

    theta_t <- m theta_t + (1 - m) theta_s for every parameter; starts as the student. Nothing of it
    takes a gradient. Buffers are not averaged: as in the official MoCo, BYOL and DINO the teacher
    stays in training mode, normalises with the statistics of its own batches and keeps its own
    running ones. It has no stochastic depth (DINO), so it draws no random numbers for that.
    Every number of it is state of the method: saved, restored, and divided with `sharding=fsdp`.
    DDP: the ranks' students are equal after a step, so their teachers stay equal without a word;
    sharded, every rank averages the rows that it holds.
    References: He et al. 2020, equation 2; Caron et al. 2021, section 3.1.
    """

    backbone: nn.Module
    head: nn.Module

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = deepcopy(backbone), deepcopy(head)
        self.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, StochasticDepth):
                module.p = 0.0
            elif type(module).__name__ == "DropPath":  # timm's
                cast(Any, module).drop_prob = 0.0

    @torch.no_grad()
    def forward(self, views: Sequence[Tensor]) -> Any:
        """What the teacher's head says of V views [B, 3, h, w]: rows [V*B, ...], crop-major."""
        return self.head(multi_crop_features(self.backbone, views))

    @torch.no_grad()
    def update(self, backbone: nn.Module, head: nn.Module, momentum: float) -> None:
        """Follow the student, after its optimizer step: in place, in the parameters' own float32.

        `momentum` 0 copies the student and 1 changes nothing, both bit for bit; where the two are
        equal they stay so, as t + (1 - m)(s - t) adds nothing.
        """
        assert 0.0 <= momentum <= 1.0, f"a momentum lies between 0 and 1, got {momentum}"
        students = [*backbone.parameters(), *head.parameters()]
        pairs = list(zip(self.parameters(), students, strict=True))
        torch._foreach_lerp_(
            [local(t) for t, _ in pairs], [local(s) for _, s in pairs], 1 - momentum
        )


def cosine_momentum(progress: Progress, start: float, end: float = 1.0) -> float:
    """The momentum of the update that follows a step.

    m(k) = end - (end - start) (1 + cos(pi k / K)) / 2 for step k of K: from `start` at the first
    step, towards `end`. Steps past the planned end keep `end`.
    References: Grill et al. 2020, section 3.2; Caron et al. 2021, section 3.1.
    """
    done = min(progress.step / progress.total_steps, 1.0)
    return end - (end - start) * (1 + math.cos(math.pi * done)) / 2
