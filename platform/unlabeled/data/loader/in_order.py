"""What an evaluation batch holds: the data set's own order, and black where an image is broken."""

from __future__ import annotations

import numpy as np

from unlabeled.data.decode import BrokenImage
from unlabeled.data.loader.rows import Broken, Item, RowBatches
from unlabeled.data.loader.slots import BatchArrays
from unlabeled.data.randomness import SampleKey


class InOrder(RowBatches):
    """Batches addressed by (first index, index behind the last)."""

    def wanted(self, item: Item) -> np.ndarray:
        return np.arange(*item, dtype=np.int64)

    def fill(self, item: Item, arrays: BatchArrays, row: int) -> Broken:
        index = item[0] + row
        views, tables = arrays.row(row)
        try:
            image = self.source.image(index)
        except BrokenImage as error:
            for array in (*views, *tables):
                array[...] = 0  # the slot held another batch before
            return ((self.source.name(index), str(error)),)
        self.pipeline.write(image, SampleKey(0, 0, index), views, tables)
        return ()
