"""What `unlabeled plan` reads: every key of `unlabeled pretrain`, and how the run is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field

from unlabeled.config.ranges import at_least, positive
from unlabeled.config.schema import PretrainConfig, Problems
from unlabeled.planning.gpus import Model


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Facts that no config of a run has."""

    images: int | None = None
    """Images of the data set; given, it is not opened and need not be there. null: `samples` where
    the run has a length in samples, or else those of the data set."""
    classes: int = 0
    """Classes of a data set that is not opened, for methods that learn from labels."""
    image_kb: float = 115.0
    """Mean size of an encoded image, in 10^3 bytes (ImageNet's training images: 115)."""
    gpu: Model = "v100_32gb"
    """What every process computes on."""
    overhead_gb: float = 3.0
    """What a GPU holds beside tensors, in 10^9 bytes: CUDA's context, workspaces of cuDNN, buffers
    of NCCL, blocks that the allocator keeps. SwAV's published runs had 2.5 to 3.6."""
    efficiency: float = 0.13
    """Share of the speed that the GPU allows, operation by operation: its peak, or as fast as its
    memory is read and written. The published runs of SwAV on V100 reached 0.10 to 0.15 (`unlabeled
    plan published`)."""

    def problems(self) -> Problems:
        """Ranges."""
        yield from positive(self, "images", "image_kb", "efficiency")
        yield from at_least(self, 0, "overhead_gb", "classes")
        if self.efficiency > 1:
            yield (
                "efficiency",
                f"is a share of what the GPU allows, at most 1, got {self.efficiency}",
            )


@dataclass(frozen=True, kw_only=True)
class PlanConfig(PretrainConfig):
    """Everything that `unlabeled plan` reads."""

    plan: PlanSettings = field(default_factory=PlanSettings)
