from __future__ import annotations

from unlabeled.data.sources.labels import class_names, class_numbers


def test_whole_numbers_sort_by_value_and_names_by_letter() -> None:
    assert class_names(["10", "9"], ["2"]) == ("2", "9", "10")
    assert class_names(["10", "9", "b"], ["a"]) == ("10", "9", "a", "b")
    assert class_names([]) == ()


def test_numbers_are_places() -> None:
    assert class_numbers(["b", "a", "b"], ("a", "b")).tolist() == [1, 0, 1]
