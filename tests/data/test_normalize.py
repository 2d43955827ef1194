from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as F

from unlabeled.config.check import build_config
from unlabeled.config.schema import Normalization
from unlabeled.data.normalize import Normalize
from unlabeled.errors import ConfigError

CPU = torch.device("cpu")


def every_value() -> torch.Tensor:
    return torch.arange(2 * 3 * 16 * 16, dtype=torch.int64).remainder(256).byte().view(2, 3, 16, 16)


@pytest.mark.parametrize("channels_last", [False, True])
def test_equal_to_torchvision_bit_for_bit(channels_last: bool) -> None:
    images = every_value()
    normalization = Normalization(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))
    result = Normalize(normalization, CPU, channels_last=channels_last)(images)
    for image, expected in zip(images, result, strict=True):
        tensor = F.to_tensor(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        tensor = F.normalize(tensor, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
        assert torch.equal(tensor, expected)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_the_batch_is_left_as_it_is() -> None:
    images = every_value()
    Normalize(Normalization(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3)), CPU)(images)
    assert torch.equal(images, every_value())


def test_a_zero_deviation_is_refused() -> None:
    with pytest.raises(ConfigError, match="std: must be positive"):
        build_config(Normalization, {"mean": [0.4, 0.5, 0.6], "std": [0.0, 1.0, 1.0]})
