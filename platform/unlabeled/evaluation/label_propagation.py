"""Carry the masks of a video's first frame on to the others by the similarity of features."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Recipe(Protocol):
    """What is read of a benchmark's config."""

    @property
    def previous_frames(self) -> int: ...
    @property
    def radius(self) -> int: ...
    @property
    def top(self) -> int: ...
    @property
    def temperature(self) -> float: ...


def track(maps: Iterable[Tensor], first: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Soft masks [C, h, w] of every frame but the first.

    maps: features [D, h, w] of the frames in order; first: one-hot masks [C, h, w] of the first
    frame. Each frame takes its masks from the first one and the `previous_frames` before it.
    """
    frames = iter(maps)
    start = F.normalize(next(frames), dim=0)
    window = neighbourhood(start.shape[1], start.shape[2], recipe.radius).to(start.device)
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=recipe.previous_frames)
    for found in frames:
        target = F.normalize(found, dim=0)
        sources = [(start, first), *recent]
        masks = propagate(
            target,
            torch.stack([features for features, _ in sources]),
            torch.stack([mask for _, mask in sources]),
            window,
            top=recipe.top,
            temperature=recipe.temperature,
        )
        recent.append((target, masks))
        yield masks


def propagate(
    target: Tensor,
    sources: Tensor,
    masks: Tensor,
    window: Tensor,
    *,
    top: int,
    temperature: float,
) -> Tensor:
    """m_q = sum_s a_qs m_s / sum_s a_qs over the `top` places s of largest a_qs; [C, h, w].

    a_qs = exp(f_q . f_s / temperature) for places s of any source frame in the window of q, else 0;
    places as similar as the last of them count too. target: unit features [D, h, w]; sources:
    [T, D, h, w]; masks: [T, C, h, w]; window: bool [h w, h w].
    """
    height, width = target.shape[1:]
    values = masks.flatten(2).transpose(1, 2).flatten(0, 1)  # [T h w, C]
    similarity = torch.einsum("dq,tds->qts", target.flatten(1), sources.flatten(2))
    affinity = (similarity / temperature).exp() * window[:, None, :]
    affinity = affinity.flatten(1)  # [h w, T h w]
    least = affinity.topk(min(top, affinity.shape[1]), dim=1).values[:, -1:]
    affinity = torch.where(affinity < least, 0.0, affinity)
    affinity /= affinity.sum(dim=1, keepdim=True)
    return (affinity @ values).T.reshape(-1, height, width)


def neighbourhood(height: int, width: int, radius: int) -> Tensor:
    """bool [h w, h w]: which places are at most `radius` rows and columns apart."""
    rows, columns = torch.arange(height), torch.arange(width)
    near_rows = (rows[:, None] - rows).abs() <= radius  # [h, h]
    near_columns = (columns[:, None] - columns).abs() <= radius  # [w, w]
    near = near_rows[:, None, :, None] & near_columns[None, :, None, :]  # [h, w, h, w]
    return near.reshape(height * width, height * width)


def stretched(masks: Tensor) -> Tensor:
    """Every mask of [C, h, w] that has anything in it, stretched to [0, 1]."""
    flat = masks.flatten(1)
    low, high = flat.amin(dim=1), flat.amax(dim=1)
    spread = torch.where(high > low, high - low, 1.0)
    full = (flat - low[:, None]) / spread[:, None]
    return torch.where((high > 0)[:, None], full, flat).reshape(masks.shape)


def index_map(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """The object of every pixel, int64 [height, width] of `size`, from soft masks [C, h, w]."""
    large = F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0]
    return stretched(large).argmax(dim=0)
