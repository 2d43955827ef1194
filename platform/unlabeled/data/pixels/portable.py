"""The backend for where numba is missing: torch's resize, PIL's arithmetic in numpy's floats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import interpolate

from unlabeled.data.pixels import portable_hue
from unlabeled.data.pixels.base import Step, ViewPlan
from unlabeled.data.pixels.geometry import Box, Interpolation
from unlabeled.data.pixels.portable_blur import blur
from unlabeled.data.pixels.renderer import Renderer


class Portable(Renderer):
    """The reference's views from packages that are always there, in about half the time.

    Flips, brightness, contrast, saturation, grayscale and solarize are bit-equal to the reference,
    hue and blur in more than 99.5 % of the values; the resize is within one grey level.

    Everything runs in the calling thread: numpy starts no threads, and torch's uint8 resize does
    not on CPUs with AVX2 (elsewhere it takes as many as torch.set_num_threads allows).
    """

    # numpy drops the GIL for the few microseconds of each call; threads that hand it to each other
    # so often are slower than one.
    releases_gil = False

    def __call__(
        self, image: np.ndarray, plans: Sequence[ViewPlan], out: Sequence[np.ndarray]
    ) -> None:
        # Made once per image: fresh memory costs more than a step.
        values = max((view.size for view in out), default=0)
        memory = np.empty(values + portable_hue.SPARE_PLANES * values // 3, np.float32)
        for plan, view in zip(plans, out, strict=True):
            crop = _resized(image, plan.box, plan.spec.size, plan.interpolation)
            if not plan.steps:
                view[...] = crop
                continue
            # Whole numbers up to 255 are exact in float32, which numpy is fastest with.
            pixels = memory[: view.size].reshape(view.shape)
            spare = memory[values:][: portable_hue.SPARE_PLANES * view.size // 3]
            pixels[...] = crop
            for step in plan.steps:
                assert not callable(step), "only the reference backend runs Python steps"
                _change(pixels, step, spare.reshape(-1, view.size // 3))
            np.copyto(view, pixels, casting="unsafe")


def _resized(image: np.ndarray, box: Box, size: int, interpolation: Interpolation) -> np.ndarray:
    """The box of [h, w, 3] as [3, size, size]; not contiguous."""
    left, top, right, bottom = box
    # Cut first, as the reference does; a copy, because torch wants memory that it may write to.
    crop = torch.from_numpy(image[top:bottom, left:right].copy()).permute(2, 0, 1)
    resized = interpolate(crop[None], (size, size), mode=interpolation, antialias=True)
    pixels: np.ndarray = resized[0].numpy()
    return pixels


def _change(pixels: np.ndarray, step: Step, spare: np.ndarray) -> None:
    """One step in place, on contiguous float32 [3, s, s] of whole numbers 0..255.

    spare: float32 [SPARE_PLANES, s * s] to work in.
    """
    name, number = step
    planes = pixels.reshape(3, -1)
    if name == "horizontal_flip":
        pixels[...] = pixels[:, :, ::-1].copy()
    elif name == "vertical_flip":
        pixels[...] = pixels[:, ::-1].copy()
    elif name == "brightness":
        _blend(planes, np.float32(0), number)
    elif name == "contrast":
        mean = _luma(planes, spare).sum(dtype=np.float64) / planes.shape[1]
        _blend(planes, np.float32(int(mean + 0.5)), number)
    elif name == "saturation":
        _blend(planes, _luma(planes, spare), number)
    elif name == "hue":
        portable_hue.adjust_hue(planes, number, spare)
    elif name == "grayscale":
        planes[...] = _luma(planes, spare)
    elif name == "gaussian_blur":
        blur(pixels, number)
    else:
        assert name == "solarize", name
        np.subtract(255, planes, out=planes, where=planes >= number)


def _blend(planes: np.ndarray, other: np.ndarray | np.float32, factor: float) -> None:
    """PIL's blend: other + factor * (x - other), clipped and truncated, in single precision."""
    planes -= other
    planes *= np.float32(factor)
    planes += other
    if factor > 1:
        np.minimum(planes, 255, out=planes)
        np.maximum(planes, 0, out=planes)
    np.trunc(planes, out=planes)


def _luma(planes: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """(19595 R + 38470 G + 7471 B + 2^15) // 2^16 [n]; all sums are below 2^24 and so are exact."""
    luma: np.ndarray = spare[0]
    term = spare[1]
    np.multiply(planes[0], 19595, out=luma)
    for channel, weight in ((1, 38470), (2, 7471)):
        np.multiply(planes[channel], weight, out=term)
        luma += term
    luma += 2**15
    luma *= 2.0**-16
    np.trunc(luma, out=luma)
    return luma
