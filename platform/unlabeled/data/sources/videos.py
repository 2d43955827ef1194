"""The contract of data sets of videos whose objects are marked in every frame."""

from __future__ import annotations

import abc

import numpy as np

from unlabeled.data.sources.base import Source


class VideoSource(Source):
    """A source whose images are the frames of videos, one video behind the other.

    `videos`: the frames of each, as places in the source, in order.
    """

    videos: tuple[range, ...] = ()

    @abc.abstractmethod
    def mask(self, index: int) -> np.ndarray:
        """The object of every pixel of a frame, uint8 [h, w]: 0 is the background, 255 unknown."""
