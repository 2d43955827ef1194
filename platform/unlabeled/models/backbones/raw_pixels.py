"""The pixels themselves as features: the baseline row of every table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from unlabeled.config.ranges import at_least
from unlabeled.errors import ConfigError
from unlabeled.registry import register


@register("backbone", "raw_pixels")
class RawPixels(nn.Module):
    """Images [B, 3, s, s] -> features [B, 3 s s], row by row; nothing to learn.

    Images of another size raise ConfigError.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the backbone."""

        image_size: int = 32
        """Height and width of the images, in pixels."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from at_least(self, 1, "image_size")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.feature_dim = 3 * config.image_size**2
        self.how_to_load = "m = torch.nn.Flatten()  # there are no weights"

    def forward(self, images: Tensor) -> Tensor:
        expected = (3, self.image_size, self.image_size)
        if images.shape[1:] != expected:
            raise ConfigError(
                f"backbone.image_size: built for images {expected}, got {tuple(images.shape[1:])}; "
                "give both the same size"
            )
        return images.flatten(1)  # [B, 3*s*s]
