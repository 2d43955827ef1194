from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.base import Split
from unlabeled.data.sources.torchvision import Torchvision
from unlabeled.errors import DataError


def build(dataset: str, root: Path, split: Split = "train", **fields: Any) -> Torchvision:
    config = Torchvision.Config(dataset=dataset, root=str(root), **fields)
    return Torchvision(config, split=split)


def write_mnist(root: Path) -> np.ndarray:
    """A tiny data set in the files of MNIST: 5 training and 3 test images."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28), dtype=np.uint8)
    for name, part, first in (("train", images[:5], 0), ("t10k", images[5:], 5)):
        header = struct.pack(">4i", 0x803, len(part), 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + part.tobytes())
        labels = bytes((first + i) % 10 for i in range(len(part)))
        path = raw / f"{name}-labels-idx1-ubyte"
        path.write_bytes(struct.pack(">2i", 0x801, len(part)) + labels)
    return images


def test_a_set_with_train_argument(tmp_path: Path) -> None:
    images = write_mnist(tmp_path)
    train, test = build("MNIST", tmp_path), build("MNIST", tmp_path, "test")
    assert (len(train), len(test)) == (5, 3)
    assert train.labels is not None and train.labels.tolist() == [0, 1, 2, 3, 4]
    assert test.labels is not None and test.labels.tolist() == [5, 6, 7]
    assert train.num_classes == test.num_classes == 10
    assert np.array_equal(test.image(0), np.repeat(images[5][:, :, None], 3, axis=2))
    assert train.name(3) == "MNIST/train/3" and train.fingerprint() != test.fingerprint()
    assert np.array_equal(pickle.loads(pickle.dumps(train)).image(2), train.image(2))


def test_a_set_with_split_argument_whose_names_are_chosen(tmp_path: Path) -> None:
    for folder, names in (
        ("gtsrb/GTSRB/Training/00000", "ab"),
        ("gtsrb/GTSRB/Training/00001", "c"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (6, 5), (ord(name), 0, 0)).save(tmp_path / folder / f"{name}.ppm")
    source = build("GTSRB", tmp_path)
    assert source.labels is not None and source.labels.tolist() == [0, 0, 1]
    assert source.classes == ("0", "1")
    assert source.image(2)[0, 0, 0] == ord("c")
    with pytest.raises(DataError, match=r"GTSRB.*tset"):
        build("GTSRB", tmp_path, train_split="tset")


def test_generated_images_without_labels_or_a_test_split(tmp_path: Path) -> None:
    source = build("FakeData", tmp_path)
    assert len(source) == 1000 and source.labels is None
    assert source.image(0).shape == (224, 224, 3)
    with pytest.raises(DataError, match="FakeData has no test split"):
        build("FakeData", tmp_path, "test")


def test_a_file_that_vanished_is_a_broken_image(tmp_path: Path) -> None:
    path = tmp_path / "eurosat" / "2750" / "Forest" / "a.jpg"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (6, 5)).save(path)
    source = build("EuroSAT", tmp_path)
    assert source.classes == ("Forest",)
    path.write_bytes(b"")
    with pytest.raises(BrokenImage):
        source.image(0)


@pytest.mark.parametrize(("name", "close"), [("CIFAR11", "CIFAR10"), ("imagenet", "ImageNet")])
def test_a_wrong_name_gets_close_ones(tmp_path: Path, name: str, close: str) -> None:
    with pytest.raises(DataError, match=f"no data set '{name}'.*Did you mean.*{close}"):
        build(name, tmp_path)


def test_functions_of_the_module_are_no_data_sets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set 'wrap_dataset_for_transforms_v2'"):
        build("wrap_dataset_for_transforms_v2", tmp_path)


def test_files_that_are_not_there_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"CIFAR10 in .*put its files there; or download=true"):
        build("CIFAR10", tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").write_bytes(b"half of it")
    with pytest.raises(DataError) as caught:
        build("CIFAR10", tmp_path)
    assert "5 of its 6 files are missing: cifar-10-batches-py/data_batch_1, " in str(caught.value)
    assert (
        "1 of its 6 files are cut short or others than published: cifar-10-batches-py/dat"
        in str(caught.value)
    )
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    message = r"1 of its 4 files are missing: MNIST/raw/t10k-labels-idx1-ubyte \("
    with pytest.raises(DataError, match=message):
        build("MNIST", tmp_path)


def test_sets_that_need_more_than_a_root_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="CocoCaptions needs annFile"):
        build("CocoCaptions", tmp_path)
