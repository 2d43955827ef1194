"""Few labels: how many of every class by closed form, and the same images in whatever order."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlabeled.config.check import build_config
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.folder import Folder
from unlabeled.data.sources.labelled_subset import (
    LabelledSubset,
    choose,
    class_counts,
    largest_remainder,
)
from unlabeled.errors import ConfigError, DataError


class Named(Source):
    """Names and labels without pixels."""

    def __init__(self, names: list[str], labels: list[int], classes: int) -> None:
        self.names, self.labels = names, np.array(labels)
        self.classes = tuple(f"class-{number}" for number in range(classes))

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> np.ndarray:
        raise AssertionError("a choice looks at no image")

    def name(self, index: int) -> str:
        return self.names[index]


def source(*sizes: int, shuffled: int | None = None) -> Named:
    """Classes of these sizes, perhaps in another order."""
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    names = [f"{label}/{number}.jpg" for number, label in enumerate(labels)]
    order = np.arange(len(labels))
    if shuffled is not None:
        order = np.random.default_rng(shuffled).permutation(order)
    return Named([names[i] for i in order], [labels[i] for i in order], len(sizes))


def chosen_names(images: Source, seed: int = 0, **fields: Any) -> set[str]:
    places = choose(images, LabelledSubset(**fields), seed)
    assert (np.diff(places) > 0).all()
    return {images.name(place) for place in places.tolist()}


def per_class(names: set[str]) -> dict[str, int]:
    labels = sorted(name.split("/")[0] for name in names)
    return {label: labels.count(label) for label in labels}


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.137, 0.29, 0.5, 1.0])
@pytest.mark.parametrize("sizes", [[1300] * 5, [732, 1300, 1299, 1001], [100, 50, 10, 1]])
def test_every_class_gets_its_share_and_the_sum_is_rounded(
    fraction: float, sizes: list[int]
) -> None:
    numbers = np.array(sizes)
    counts = largest_remainder(fraction, numbers, numbers)
    quotas = fraction * numbers
    assert counts.sum() == round(fraction * sum(sizes))
    assert (np.abs(counts - quotas) < 1 + 1e-9).all()
    whole = np.abs(quotas - quotas.round()) < 1e-9
    assert (counts[whole] == quotas.round()[whole]).all()


@pytest.mark.parametrize("fraction", [0.15, 0.34, 0.5, 0.81])
@pytest.mark.parametrize("room", [[4, 6, 9], [2, 6, 5], [4, 3, 9]])
def test_no_other_counts_of_that_sum_are_nearer(fraction: float, room: list[int]) -> None:
    sizes = np.array([4, 6, 9])
    total = round(fraction * sizes.sum())
    if total > sum(room) or (np.floor(fraction * sizes) > room).any():
        room = sizes.tolist()
    quotas = fraction * sizes
    distances = [
        float(np.abs(np.array(counts) - quotas).sum())
        for counts in itertools.product(*(range(most + 1) for most in room))
        if sum(counts) == total
    ]
    counts = largest_remainder(fraction, sizes, np.array(room))
    assert (counts <= room).all() and counts.sum() == total
    assert np.abs(counts - quotas).sum() == pytest.approx(min(distances))


def test_counts_are_exact_in_plain_cases() -> None:
    assert per_class(chosen_names(source(130, 130, 130), fraction=0.1)) == dict.fromkeys("012", 13)
    # Quotas 1.5, 2.5 and 7.0 leave one image to give: of equal remainders the first gets it.
    assert per_class(chosen_names(source(15, 25, 70), fraction=0.1)) == {"0": 2, "1": 2, "2": 7}
    assert per_class(chosen_names(source(5, 4, 9), per_class=3)) == dict.fromkeys("012", 3)
    assert len(chosen_names(source(5, 4), fraction=1.0)) == 9


@pytest.mark.parametrize("fields", [{"fraction": 0.2}, {"per_class": 4}])
def test_the_order_of_the_listing_changes_nothing_and_the_seed_does(fields: dict[str, Any]) -> None:
    sizes = (40, 25, 60)
    expected = chosen_names(source(*sizes), **fields)
    for shuffled in range(3):
        assert chosen_names(source(*sizes, shuffled=shuffled), **fields) == expected
    assert chosen_names(source(*sizes), seed=1, **fields) != expected
    # Images of another class, gone or new, do not change who is chosen within this one.
    others = chosen_names(source(*sizes[:2]), **fields)
    assert others == {name for name in expected if not name.startswith("2/")}


def test_smaller_subsets_lie_in_larger_ones() -> None:
    images = source(40, 25, 60)
    nested = [chosen_names(images, per_class=count) for count in (1, 5, 20)]
    assert nested[0] < nested[1] < nested[2]
    # Quotas of 0.1 are 0.5 and 9.5; with room for none of the first class, all go to the second.
    few = source(5, 95)
    counts = class_counts(few, LabelledSubset(fraction=0.1), room=np.array([0, 20]))
    assert counts.tolist() == [0, 10]
    # Quotas of 0.9 in every class, and two classes with room for all three images.
    counts = largest_remainder(0.3, np.array([3, 3, 3]), np.array([0, 3, 3]))
    assert counts.tolist() == [0, 2, 1]


def test_all_images_are_chosen_equally_often() -> None:
    images = source(12, 8)
    seeds = 600
    times = dict.fromkeys(images.names, 0)
    for seed in range(seeds):
        for name in chosen_names(images, seed, fraction=0.25):
            times[name] += 1
    deviation = (seeds * 0.25 * 0.75) ** 0.5
    assert max(abs(count - seeds / 4) for count in times.values()) < 4 * deviation
    assert min(times.values()) != max(times.values())


@pytest.fixture
def imagenet(tmp_path: Path) -> Folder:
    """Two classes in ImageNet's layout; nothing is decoded here."""
    for synset, numbers in (("n01440764", (10026, 10027, 18)), ("n01443537", (2, 10026))):
        for number in numbers:
            path = tmp_path / "train" / synset / f"{synset}_{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return Folder(Folder.Config(root=str(tmp_path / "train")), split="train")


def test_lists_name_files_as_simclr_does_or_paths(imagenet: Folder, tmp_path: Path) -> None:
    listing = tmp_path / "1percent.txt"
    expected = {"n01440764/n01440764_10026.JPEG", "n01443537/n01443537_2.JPEG"}
    listing.write_text("n01443537_2.JPEG\nn01440764_10026.JPEG\n")
    for seed in (0, 1):
        assert chosen_names(imagenet, seed, list=str(listing)) == expected
    listing.write_text("\n".join([*expected, "n01443537_2.JPEG"]))  # once by path, once by name
    assert chosen_names(imagenet, list=str(listing)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "n01440764_10026.JPEG\nn9_1.JPEG\nn8_2.JPEG",
            r"2 of 3 images are not in.*first n8_2.JPEG",
        ),
        ("\n", "names no images"),
        ("n01440764_10026.JPEG", r"leave 1 of 2 classes without one \(n01443537\); list some"),
    ],
)
def test_lists_that_do_not_fit_are_named(
    imagenet: Folder, tmp_path: Path, text: str, message: str
) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(text)
    with pytest.raises(DataError, match=message):
        chosen_names(imagenet, list=str(listing))


def test_a_file_name_of_two_images_needs_its_path(tmp_path: Path) -> None:
    images = Named(["cat/1.jpg", "dog/1.jpg"], [0, 1], 2)
    listing = tmp_path / "list.txt"
    listing.write_text("1.jpg")
    with pytest.raises(DataError, match=r"1.jpg may be cat/1.jpg or dog/1.jpg; list paths"):
        chosen_names(images, list=str(listing))
    listing.write_text("cat/1.jpg\ndog/1.jpg")
    assert chosen_names(images, list=str(listing)) == {"cat/1.jpg", "dog/1.jpg"}
    with pytest.raises(DataError, match=r"cannot read .*nowhere.txt"):
        chosen_names(images, list=str(tmp_path / "nowhere.txt"))


def test_no_class_is_left_without_an_image() -> None:
    with pytest.raises(DataError, match=r"leave 1 of 3 classes without one \(class-1\).*1/9 of"):
        chosen_names(source(90, 9, 100), fraction=0.02)
    assert len(chosen_names(source(90, 9, 100), fraction=1 / 9)) == 22
    with pytest.raises(DataError, match=r"only 4 of 'class-1' and too few of 2 of the 3"):
        chosen_names(source(90, 4, 3), per_class=5)
    unlabelled = source(3)
    unlabelled.labels = None
    with pytest.raises(DataError, match="no labels"):
        chosen_names(unlabelled, fraction=0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "fraction: give one of fraction, per_class and list.*got none"),
        ({"fraction": 0.1, "list": "a"}, "fraction: give one of.*got fraction and list"),
        ({"fraction": 1.5}, r"fraction: must lie in \(0, 1\], got 1.5"),
        ({"per_class": 0}, "per_class: must be 1 or more, got 0"),
    ],
)
def test_impossible_subsets_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(LabelledSubset, fields)
