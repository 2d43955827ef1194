"""What a GPU holds and how fast it computes, as its maker states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Model = Literal["v100_16gb", "v100_32gb", "a100_40gb", "a100_80gb", "h100_80gb", "h200_141gb"]


@dataclass(frozen=True)
class GPU:
    """memory_gb: 10^9 bytes, and gb_per_second what it reads and writes of them; tflops: 10^12
    operations a second without sparsity, by precision.

    A precision that the matrix units do not have runs as float32 does.
    """

    memory_gb: float
    gb_per_second: float
    tflops: dict[str, float]


_VOLTA = {"fp32": 15.7, "fp16": 125.0, "bf16": 15.7}
_AMPERE = {"fp32": 19.5, "fp16": 312.0, "bf16": 312.0}
_HOPPER = {"fp32": 67.0, "fp16": 989.0, "bf16": 989.0}
GPUS: dict[str, GPU] = {
    "v100_16gb": GPU(16 * 1.073741824, 900.0, _VOLTA),
    "v100_32gb": GPU(32 * 1.073741824, 900.0, _VOLTA),
    "a100_40gb": GPU(40 * 1.073741824, 1555.0, _AMPERE),
    "a100_80gb": GPU(80 * 1.073741824, 2039.0, _AMPERE),
    "h100_80gb": GPU(80 * 1.073741824, 3350.0, _HOPPER),
    "h200_141gb": GPU(141.0, 4800.0, _HOPPER),
}
