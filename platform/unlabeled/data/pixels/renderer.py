"""The contract of a backend: who makes the pixels."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from unlabeled.data.pixels.base import ViewPlan
from unlabeled.data.pixels.recipe import Recipe
from unlabeled.data.pixels.table import write_steps
from unlabeled.data.randomness import SampleKey


class Renderer(abc.ABC):
    """Makes views from an image; pure in its arguments.

    `releases_gil`: calls in several threads run at the same time.
    """

    releases_gil: bool = False

    def prepare(self) -> None:  # noqa: B027 - most backends have nothing to prepare
        """Do what is needed once, before threads or worker processes start."""

    @abc.abstractmethod
    def __call__(
        self, image: np.ndarray, plans: Sequence[ViewPlan], out: Sequence[np.ndarray]
    ) -> None:
        """Write the views of an RGB uint8 image [h, w, 3] into `out`: uint8 [3, size, size] each.

        The arrays of `out` are C-contiguous (rows of a batch). May be called from several threads
        at once.
        """

    def make(
        self,
        recipe: Recipe,
        image: np.ndarray,
        key: SampleKey,
        out: Sequence[np.ndarray],
        deferred: Sequence[np.ndarray],
    ) -> None:
        """Plan the views of a sample and write them.

        With arrays in `deferred`, float64 [T, 2] for every view, the steps are written there, for
        the device, and the views are only cut and resized.
        """
        plans = recipe.plan(image.shape[1], image.shape[0], key)
        if len(deferred):
            for plan, table in zip(plans, deferred, strict=True):
                write_steps(plan.steps, table)
            plans = [plan._replace(steps=()) for plan in plans]
        self(image, plans, out)
