from __future__ import annotations

import numpy as np
import pytest

from unlabeled.data.sources.subset import Subset, evenly_spaced
from unlabeled.data.sources.synthetic import Synthetic

SOURCE = Synthetic(Synthetic.Config(num_samples=20, num_classes=3, image_size=8), split="train")


def test_samples_are_those_of_the_source_at_these_places() -> None:
    places = np.array([7, 0, 19, 7])
    part = Subset(SOURCE, places)
    assert len(part) == 4 and part.classes == SOURCE.classes and part.labels is not None
    for index, place in enumerate(places.tolist()):
        np.testing.assert_array_equal(part.image(index), SOURCE.image(place))
        assert part.name(index) == SOURCE.name(place)
        assert part.labels[index] == SOURCE.labels[place]


@pytest.mark.parametrize(("size", "expected"), [(2, [0, 19]), (5, [0, 5, 10, 14, 19])])
def test_even_spacing_runs_from_the_first_to_the_last(size: int, expected: list[int]) -> None:
    part = evenly_spaced(SOURCE, size)
    assert [part.name(i) for i in range(len(part))] == [SOURCE.name(i) for i in expected]
    assert len(evenly_spaced(SOURCE, 99)) == 20


def test_several_classes_an_image_stay_with_their_image() -> None:
    source = Synthetic(Synthetic.Config(num_samples=4, num_classes=3, image_size=8), split="train")
    source.labels, source.multi_labels = None, np.arange(12, dtype=np.int8).reshape(4, 3)
    part = Subset(source, np.array([2, 0]))
    assert part.labels is None and part.multi_labels is not None
    assert part.multi_labels.tolist() == [[6, 7, 8], [0, 1, 2]]
