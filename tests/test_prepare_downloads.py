"""prepare_*.py --download against a server of the test: what is missing comes, and nothing else."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from tests_support import dataset_trees
from tests_support.dataset_trees import landmarks_truth, picture
from tests_support.scripts import script
from tests_support.web import Served, serving
from unlabeled.data.published import PUBLISHED


@pytest.fixture
def web() -> Iterator[Served]:
    with serving() as server:
        yield server


def tgz(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)
    return whole.getvalue()


def zipped(root: Path, top: str = ".") -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, f"{top}/{path.relative_to(root)}")
    return whole.getvalue()


def plain_tar(devkit: Path) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        archive.add(devkit, "VOCdevkit")
    return whole.getvalue()


def landmarks(web: Served) -> None:
    """The files of both sets, with the folders that the real archives have."""
    for name in ("roxford5k", "rparis6k"):
        web.files[f"gnd_{name}.pkl"] = landmarks_truth()
    web.files["oxbuild_images-v1.tgz"] = tgz({f"./{n}.jpg": picture() for n in ("a_0", "a_1", "q")})
    web.files["paris_1-v1.tgz"] = tgz({"paris/eiffel/a_0.jpg": picture(), "paris/q.jpg": picture()})
    web.files["paris_2-v1.tgz"] = tgz({"paris/louvre/a_1.jpg": picture()})


def test_landmarks_are_fetched_when_asked_and_only_once(web: Served, tmp_path: Path) -> None:
    landmarks(web)
    unasked = script("prepare_revisited", tmp_path, "--part")
    assert unasked.returncode == 3 and web.asked == [] and not any(tmp_path.iterdir())
    assert "--download fetches and unpacks:\n" in unasked.stderr
    assert "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/oxbuild_images-v1" in unasked.stderr
    options = ("--part", "--download", "--mirror", web.address)
    one = script("prepare_revisited", tmp_path, "--landmarks", "rparis6k", *options)
    assert one.returncode == 0, one.stderr
    assert web.asked == ["gnd_rparis6k.pkl", "paris_1-v1.tgz", "paris_2-v1.tgz"]
    assert "1 queries among 2 images of rparis6k" in one.stdout
    assert {path.name for path in (tmp_path / "rparis6k/jpg").iterdir()} == {
        *("a_0.jpg", "a_1.jpg", "q.jpg")
    }
    both = script("prepare_revisited", tmp_path, *options)
    assert both.returncode == 0 and web.asked[3:] == ["gnd_roxford5k.pkl", "oxbuild_images-v1.tgz"]
    lonely = script("prepare_revisited", tmp_path, "--mirror", web.address)
    assert lonely.returncode == 2 and "give both" in lonely.stderr
    # An image that a full disk cut short is unpacked again from what is there.
    (tmp_path / "roxford5k/jpg/q.jpg").write_bytes(picture()[:99])
    again = script("prepare_revisited", tmp_path, *options)
    assert again.returncode == 0 and len(web.asked) == 5, again.stderr
    assert (tmp_path / "roxford5k/jpg/q.jpg").read_bytes() == picture()
    # Nothing is fetched, and nothing else, where nothing is missing.
    for archive in tmp_path.glob("*/*.tgz"):
        archive.unlink()
    (tmp_path / "rparis6k/jpg/q.jpg").unlink()
    once_more = script("prepare_revisited", tmp_path, *options)
    assert once_more.returncode == 0 and web.asked[5:] == ["paris_1-v1.tgz", "paris_2-v1.tgz"]


def test_half_a_download_and_a_hostile_one_are_refused(web: Served, tmp_path: Path) -> None:
    landmarks(web)
    options = ("--landmarks", "roxford5k", "--part", "--download", "--mirror", web.address)
    archive = "oxbuild_images-v1.tgz"
    web.shortened[archive] = 300
    done = script("prepare_revisited", tmp_path, *options)
    assert done.returncode == 3 and "ended after 300 of" in done.stderr
    assert not (tmp_path / "roxford5k" / archive).exists()
    web.shortened.clear()
    link = tarfile.TarInfo("jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
    web.files[archive] = tgz({"a_0.jpg": picture()}, link)
    done = script("prepare_revisited", tmp_path, *options)
    assert done.returncode == 3 and "its member 'jpg' is a link or a device" in done.stderr
    assert not (tmp_path / "roxford5k" / "jpg").exists()
    # Half of it, put there by hand.
    landmarks(web)
    (tmp_path / "roxford5k" / archive).write_bytes(web.files[archive][:500])
    done = script("prepare_revisited", tmp_path, *options)
    assert done.returncode == 3 and "is damaged or half-downloaded" in done.stderr
    (tmp_path / "roxford5k" / archive).unlink()
    assert script("prepare_revisited", tmp_path, *options).returncode == 0
    del web.files[archive]
    (tmp_path / "roxford5k" / archive).unlink()
    (tmp_path / "roxford5k/jpg/q.jpg").unlink()
    done = script("prepare_revisited", tmp_path, *options)
    assert done.returncode == 3 and "the server says 404" in done.stderr
    with serving() as gone:
        address = gone.address
    done = script("prepare_revisited", tmp_path, *options[:-1], address)
    assert done.returncode == 5 and "cannot reach" in done.stderr


def test_another_file_than_the_published_one_is_refused(web: Served, tmp_path: Path) -> None:
    dataset_trees.davis(tmp_path / "made")
    web.files["DAVIS-2017-trainval-480p.zip"] = zipped(tmp_path / "made", "DAVIS")
    options = ("--part", "--download", "--mirror", web.address)
    done = script("prepare_davis", tmp_path / "davis", *options)
    assert done.returncode == 3 and "is not the published file" in done.stderr, done.stderr
    assert list((tmp_path / "davis").iterdir()) == []


def test_archives_are_unpacked_to_the_layout_that_is_read(
    web: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the checksums of the test's own archives."""
    dataset_trees.voc(tmp_path / "devkit")
    dataset_trees.coco(tmp_path / "common")
    dataset_trees.davis(tmp_path / "made")
    dataset_trees.copydays(tmp_path / "copies")
    archives = {"davis": [zipped(tmp_path / "made", "DAVIS")]}
    # Both years in every archive, all of COCO in every one: what is there twice is replaced.
    archives |= {"voc2007": [plain_tar(tmp_path / "devkit")] * 2}
    archives |= {"voc2012": [plain_tar(tmp_path / "devkit")]}
    archives |= {f"coco/{s}2017": [zipped(tmp_path / "common")] * 2 for s in ("train", "val")}
    for part in ("original", "strong"):
        paths = (tmp_path / "copies" / part).iterdir()
        archives[f"copydays/{part}"] = [tgz({path.name: path.read_bytes() for path in paths})]
    for key, contents in archives.items():
        checked = []
        for known, content in zip(PUBLISHED[key], contents, strict=True):
            web.files[known.to] = content
            checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
            checked.append(replace(known, checksum=checksum))
        monkeypatch.setitem(PUBLISHED, key, tuple(checked))
    options = ("--part", "--download", "--mirror", web.address)
    for name, made in (
        *(("davis", "made"), ("copydays", "copies"), ("voc", "devkit"), ("coco", "common")),
    ):
        root = tmp_path / name
        done = script(f"prepare_{name}", root, *options)
        assert done.returncode == 0, done.stderr
        wanted = {p.relative_to(tmp_path / made) for p in (tmp_path / made).rglob("*.*")}
        assert wanted <= {path.relative_to(root) for path in root.rglob("*.*")}
    assert (
        "complete: 2 videos of 6 frames for val"
        in script("prepare_davis", tmp_path / "davis", "--part").stdout
    )
    # Only the part that is missing is fetched.
    web.asked.clear()
    (tmp_path / "copydays/copydays_strong.tar.gz").unlink()
    for path in (tmp_path / "copydays/strong").iterdir():
        path.unlink()
    assert script("prepare_copydays", tmp_path / "copydays", *options).returncode == 0
    assert web.asked == ["copydays_strong.tar.gz"]


def cifar10(monkeypatch: pytest.MonkeyPatch, address: str) -> bytes:
    """An archive of CIFAR-10 with two images a file, and torchvision told of it."""
    known = torchvision.datasets.CIFAR10
    draw = np.random.default_rng(0)
    files = {"batches.meta": {"label_names": [f"class {number}" for number in range(10)]}}
    for name in [*(file for file, _ in known.train_list), "test_batch"]:
        pixels = draw.integers(0, 256, (2, 3072), dtype=np.uint8)
        files[name] = {"data": pixels, "labels": [3, 9]}  # type: ignore[dict-item]
    content = {name: pickle.dumps(value, 2) for name, value in files.items()}
    md5 = {name: hashlib.md5(value).hexdigest() for name, value in content.items()}
    archive = tgz({f"cifar-10-batches-py/{name}": value for name, value in content.items()})
    train = [[name, md5[name]] for name, _ in known.train_list]
    monkeypatch.setattr(known, "train_list", train)
    monkeypatch.setattr(known, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(known, "meta", {**known.meta, "md5": md5["batches.meta"]})
    monkeypatch.setattr(known, "tgz_md5", hashlib.md5(archive).hexdigest())
    monkeypatch.setattr(known, "url", f"{address}/cifar-10-python.tar.gz")
    return archive


def test_cifar_is_what_torchvision_reads(
    web: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["cifar-10-python.tar.gz"] = cifar10(monkeypatch, web.address)
    options = ("--sets", "CIFAR10")
    nothing = script("prepare_cifar", tmp_path, *options)
    assert nothing.returncode == 3 and "CIFAR10: 7 of 7 missing" in nothing.stderr
    assert "expected:\n  cifar-10-batches-py/data_batch_1" in nothing.stderr and web.asked == []
    done = script("prepare_cifar", tmp_path, *options, "--download")
    assert done.returncode == 0, done.stderr
    assert "complete: 10 and 2 images of 10 classes" in done.stdout
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    batch.write_bytes(batch.read_bytes()[:-1])
    cut = script("prepare_cifar", tmp_path, *options)
    assert cut.returncode == 3 and "are not the published ones (cut short?)" in cut.stderr
    assert script("prepare_cifar", tmp_path, *options, "--download").returncode == 0
    assert web.asked == ["cifar-10-python.tar.gz"]
