"""The backend for speed: kernels compiled by numba, one call for all views of an image."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unlabeled.data.pixels.base import ViewPlan
from unlabeled.data.pixels.recipe import Recipe
from unlabeled.data.pixels.renderer import Renderer
from unlabeled.data.pixels.table import CODES
from unlabeled.data.randomness import SampleKey, sample_word
from unlabeled.errors import EnvironmentProblem
from unlabeled.process import importing

if TYPE_CHECKING:
    from unlabeled.data.pixels.kernels.compile import Kernels
    from unlabeled.data.pixels.kernels.scratch import Scratch


def available() -> bool:
    """Whether numba is installed; it is not imported."""
    return importlib.util.find_spec("numba") is not None


def _kernels() -> Kernels:
    try:
        # Imported here alone: numba takes a third of a second that other backends need not spend.
        with importing():
            module = importlib.import_module("unlabeled.data.pixels.kernels.compile")
    except (ImportError, OSError) as error:
        raise EnvironmentProblem(
            f"transform.backend: 'compiled' needs numba, which cannot be imported here ({error}); "
            "pip install numba, or take backend=portable"
        ) from error
    kernels: Kernels = module.kernels()
    return kernels


class Compiled(Renderer):
    """The reference's views, bit for bit, from compiled code that does not hold the GIL.

    Any size, sigma and shrinking factor; the same bytes in any number of threads, each of which
    keeps some memory of its own: three times the longest side of image and view, times the side of
    the view.
    """

    releases_gil = True

    def __init__(self) -> None:
        self._kernels: Kernels | None = None
        self._of_thread = threading.local()

    def prepare(self) -> None:
        """Compile the kernels, or load them from the cache on disk: for all threads and workers.

        Otherwise the first image waits for it. EnvironmentProblem if numba is missing or broken.
        """
        self._kernels = _kernels()

    def _loaded(self) -> Kernels:
        if self._kernels is None:
            self.prepare()
            assert self._kernels is not None
        return self._kernels

    def __reduce__(self) -> tuple[type[Compiled], tuple[()]]:
        return Compiled, ()

    def __call__(
        self, image: np.ndarray, plans: Sequence[ViewPlan], out: Sequence[np.ndarray]
    ) -> None:
        """As `Renderer`; ValueError if an array or a box is not what the contract says."""
        pixels = _checked(image)
        height, width, _ = pixels.shape
        for plan, view in zip(plans, out, strict=True):
            left, top, right, bottom = plan.box
            if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                raise ValueError(f"the box {plan.box} is not within the {width} x {height} image")
            _check_view(view, plan.spec.size)
        size = max((plan.spec.size for plan in plans), default=1)
        self._run(pixels, size, *_tables(plans, out))

    def make(
        self,
        recipe: Recipe,
        image: np.ndarray,
        key: SampleKey,
        out: Sequence[np.ndarray],
        deferred: Sequence[np.ndarray],
    ) -> None:
        """As `Renderer`; the decisions too are made in compiled code, unless one is Python."""
        if recipe.tables is None:
            super().make(recipe, image, key, out, deferred)
            return
        pixels = _checked(image)
        height, width, _ = pixels.shape
        for view, array in zip(recipe.views, out, strict=True):
            _check_view(array, view.spec.size)
        table = np.empty((len(out), 9), np.int64)
        codes, numbers = np.empty(recipe.all_steps, np.int64), np.empty(recipe.all_steps)
        left = np.empty((len(out), len(deferred[0]) if deferred else 0, 2))
        self.decide(recipe, key, (width, height), table, codes, numbers, left)
        for rows, steps in zip(deferred, left, strict=False):
            rows[...] = steps
        table[:, 0] = [_address(array) for array in out]
        self._run(pixels, recipe.largest, table, codes, numbers)

    def decide(
        self,
        recipe: Recipe,
        key: SampleKey,
        image_size: tuple[int, int],
        table: np.ndarray,
        codes: np.ndarray,
        numbers: np.ndarray,
        deferred: np.ndarray,
    ) -> None:
        """`recipe.plan` for an image of (width, height), into arrays: see `kernels.plan.plan`."""
        assert recipe.tables is not None, "an operation decides in Python"
        word = sample_word(key)
        self._loaded().plan(
            # As a signed number: numba would compile once more for those that need the 64th bit.
            word - (word >> 63 << 64),
            *image_size,
            *recipe.tables,
            recipe.draws,
            table,
            codes,
            numbers,
            deferred,
        )

    def _run(
        self,
        pixels: np.ndarray,
        size: int,
        table: np.ndarray,
        codes: np.ndarray,
        numbers: np.ndarray,
    ) -> None:
        """Call the kernels; size: of the largest view."""
        kernels = self._loaded()
        height, width, _ = pixels.shape
        kernels.render(
            pixels.__array_interface__["data"][0],
            width,
            height,
            kernels.pass_order,
            table,
            codes,
            numbers,
            self._scratch(kernels, width, height, size),
        )

    def _scratch(self, kernels: Kernels, width: int, height: int, size: int) -> Scratch:
        """This thread's memory, replaced by more where it is too small."""
        limits: tuple[int, int, int] = getattr(self._of_thread, "limits", (0, 0, 0))
        if width > limits[0] or height > limits[1] or size > limits[2]:
            limits = max(width, limits[0]), max(height, limits[1]), max(size, limits[2])
            self._of_thread.scratch = kernels.scratch_for(*limits)
            self._of_thread.limits = limits
        scratch: Scratch = self._of_thread.scratch
        return scratch


def _tables(
    plans: Sequence[ViewPlan], out: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The plans as `kernels.render.render` takes them: views, codes and numbers."""
    views: list[int] = []
    codes: list[int] = []
    numbers: list[float] = []
    for plan, view in zip(plans, out, strict=True):
        first = len(codes)
        for step in plan.steps:
            assert not callable(step), "only the reference backend runs Python steps"
            codes.append(CODES[step[0]])
            numbers.append(step[1])
        bicubic = plan.interpolation == "bicubic"
        views += _address(view), *plan.box, plan.spec.size, bicubic, first, len(codes)
    table = np.array(views, np.int64).reshape(-1, 9)
    return table, np.array(codes, np.int64), np.array(numbers, np.float64)


def _address(view: np.ndarray) -> int:
    """Of a writeable array, in a quarter of the time that numpy takes for it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))  # type: ignore[arg-type]


def _checked(image: np.ndarray) -> np.ndarray:
    """The image in contiguous memory: the kernels read and write where they are told to."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"not an RGB uint8 image: {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)


def _check_view(view: np.ndarray, size: int) -> None:
    flags = view.flags
    if view.dtype != np.uint8 or view.shape != (3, size, size) or size < 1:
        raise ValueError(f"a view of {size} pixels cannot be {view.dtype} {view.shape}")
    if not (flags.c_contiguous and flags.writeable):
        raise ValueError("a view must be contiguous and writeable")
