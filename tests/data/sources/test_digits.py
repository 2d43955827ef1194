from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests_support.commands import python
from unlabeled.config.check import build_config
from unlabeled.data.sources import digits
from unlabeled.data.sources.digits import Digits
from unlabeled.errors import ConfigError, EnvironmentProblem


def test_the_splits_are_a_partition_of_scikit_learns_digits() -> None:
    grey, labels = load_digits(return_X_y=True)
    pixels = np.rint(grey * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    expected = sorted((image.tobytes(), label) for image, label in zip(pixels, labels, strict=True))
    found = []
    for split in ("train", "test"):
        source = Digits(Digits.Config(), split=split)  # type: ignore[arg-type]
        assert source.labels is not None
        for index in range(len(source)):
            image = source.image(index)
            assert image.shape == (8, 8, 3) and (image == image[:, :, :1]).all()
            found.append((np.ascontiguousarray(image[:, :, 0]).tobytes(), source.labels[index]))
    assert sorted(found) == expected


def test_every_class_gives_the_same_share() -> None:
    train = Digits(Digits.Config(), split="train")
    test = Digits(Digits.Config(), split="test")
    assert train.labels is not None and test.labels is not None
    share = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    assert abs(share - 0.25).max() < 0.005
    assert test.classes == tuple("0123456789")


def test_the_seed_chooses_the_split() -> None:
    prints = [Digits(Digits.Config(seed=seed), split="test").images.tobytes() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_a_fraction_is_a_fraction() -> None:
    with pytest.raises(ConfigError, match="test_fraction: must lie between 0 and 1"):
        build_config(Digits.Config, {"test_fraction": 1.0})


@pytest.mark.parametrize(
    ("found", "fault"),
    [(None, "scikit-learn is not installed"), ("/gone/digits.csv.gz", "/gone/digits.csv.gz not")],
)
def test_missing_digits_name_the_package(
    monkeypatch: pytest.MonkeyPatch, found: str | None, fault: str
) -> None:
    monkeypatch.setattr(digits, "installed_file", lambda package, path: found)
    with pytest.raises(EnvironmentProblem, match=rf"{fault}.*pip install --upgrade scikit-learn"):
        Digits(Digits.Config(), split="test")


@pytest.mark.slow
def test_scikit_learn_is_not_imported() -> None:
    program = (
        "import sys; from unlabeled.data.sources.digits import Digits; "
        "print(len(Digits(Digits.Config(), split='test')), 'sklearn' in sys.modules)"
    )
    assert python("-c", program).stdout == "450 False\n"
