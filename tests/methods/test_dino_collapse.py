"""Why DINO both centres and sharpens: without either, a toy collapses as the thesis says it does.

Reference: Caron et al. 2021, section 5.3: without centring one dimension takes all (entropy 0),
without sharpening every output is uniform (entropy ln K).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unlabeled.assigners.centering import Centering
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.losses.swav import SwAVLoss
from unlabeled.methods.base import DataFacts, Progress
from unlabeled.methods.dino import DINO
from unlabeled.models.heads.dino import DINOHead

STEPS, IMAGES, DIM, OUTPUTS = 200, 64, 8, 8
CLUSTERS = 4
SHARP = {"temperature": 0.03, "warmup_temperature": 0.03}

pytestmark = pytest.mark.slow  # one to two seconds each


def toy(**centering: Any) -> DINO:
    torch.manual_seed(1)
    config = DINOHead.Config(hidden_dim=16, output_dim=8, num_outputs=OUTPUTS)
    return DINO(
        DINO.Config(momentum=0.95, freeze_last_layer_epochs=0),
        backbone=nn.Sequential(nn.Linear(DIM, 16), nn.Tanh()),
        head=DINOHead(config, feature_dim=16, num_classes=0),
        loss=SwAVLoss(SwAVLoss.Config(temperature=0.1)),
        assigner=Centering(Centering.Config(**(SHARP | centering))),
        facts=DataFacts(
            num_samples=IMAGES,
            num_classes=0,
            views=(ViewSpec(1, "global"),) * 2,
            batch_size=IMAGES,
            micro_batch_size=IMAGES,
            steps_per_epoch=10,
            seed=0,
        ),
    )


def final_codes(method: DINO) -> Tensor:
    """Codes [2 IMAGES, OUTPUTS] of the last of some hundred steps on points of four clusters."""
    generator = torch.Generator().manual_seed(1)
    means = 2 * torch.randn(CLUSTERS, DIM, generator=generator)
    images = means.repeat_interleave(IMAGES // CLUSTERS, dim=0)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.01)
    for step in range(STEPS):
        noise = 0.5 * torch.randn(2, IMAGES, DIM, generator=generator)
        batch = Batch(list(images + noise), torch.arange(IMAGES), None)
        progress = Progress(step, 10, STEPS)
        method.before_step(progress, [batch])
        optimizer.zero_grad()
        output = method(batch, 0)
        output.loss.backward()
        method.after_backward(progress)
        optimizer.step()
        method.after_update(progress)
    assert output.codes is not None
    return output.codes


def entropy(probabilities: Tensor) -> float:
    """Mean over rows, as a share of ln K."""
    return float(-torch.xlogy(probabilities, probabilities).sum(dim=-1).mean()) / math.log(OUTPUTS)


def test_with_both_the_codes_are_sharp_and_no_output_takes_all() -> None:
    codes = final_codes(toy())
    assert entropy(codes) < 0.2
    assert entropy(codes.mean(dim=0)) > 0.3
    assert float(codes.mean(dim=0).max()) < 0.7


def test_without_centring_one_dimension_takes_all() -> None:
    codes = final_codes(toy(momentum=1.0))
    assert len(codes.argmax(dim=1).unique()) == 1
    assert entropy(codes) < 0.1
    assert entropy(codes.mean(dim=0)) < 0.1


def test_without_sharpening_every_code_is_uniform() -> None:
    codes = final_codes(toy(temperature=0.1, warmup_temperature=0.1))
    assert entropy(codes) > 0.99
