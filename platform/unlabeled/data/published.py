"""Where data sets are published, and where the content of each file goes below a root.

An address without a checksum is one whose authors give none; what it holds is then checked by its
format, its length and the lists of the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unlabeled.data.archives import Place, unpack
from unlabeled.data.download import fetch
from unlabeled.data.expected_files import Tell


@dataclass(frozen=True)
class Published:
    """A file that somebody publishes.

    to: where it is kept, below the root. place: where the members of an archive go; None for a file
    that is used as it is. checksum: `sha256:<hex>` or `md5:<hex>`.
    """

    url: str
    to: str
    place: Place | None = None
    checksum: str | None = None

    def obtain(self, root: Path, mirror: str | None, tell: Tell) -> None:
        """Fetch it, from a folder of the same file names if `mirror` is one, and unpack it."""
        name = PurePosixPath(self.to).name
        url = self.url if mirror is None else f"{mirror.rstrip('/')}/{name}"
        fetch(url, root / self.to, checksum=self.checksum, tell=tell)
        if self.place is not None:
            unpack(root / self.to, root, self.place, tell=tell)


def pictures_to(folder: str) -> Place:
    """All .jpg of an archive side by side in one folder, whatever folders they come in."""

    def place(name: str) -> str | None:
        picture = PurePosixPath(name).name
        hidden = picture.startswith(".")  # what macOS leaves in archives
        return f"{folder}/{picture}" if picture.endswith(".jpg") and not hidden else None

    return place


def without(folder: str) -> Place:
    """All that lies below this folder of an archive, without it."""

    def place(name: str) -> str | None:
        path = PurePosixPath(name)
        return str(path.relative_to(folder)) if path.is_relative_to(folder) else None

    return place


def as_they_are(name: str) -> str:
    """Every member under its own name."""
    return name


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
# Plain http as its authors give it; the ground truth is read as data, which can run nothing.
_REVISITED = "http://cmp.felk.cvut.cz/revisitop/data/datasets"
# INRIA's own server (pascal.inrialpes.fr) no longer answers; VISSL's authors keep two of its
# archives. The checksums are those that users of these wrote down.
_VISSL = "https://dl.fbaipublicfiles.com/vissl/datasets"
# The checksums are those of torchvision (datasets/voc.py).
_PASCAL = "http://host.robots.ox.ac.uk/pascal/VOC"
_COCO = "http://images.cocodataset.org"
_COCO_BOXES = "annotations/annotations_trainval2017.zip"


def _landmarks(name: str, images: list[str]) -> tuple[Published, ...]:
    truth = f"gnd_{name}.pkl"
    return (
        Published(f"{_REVISITED}/{name}/{truth}", to=f"{name}/{truth}"),
        *(
            Published(f"{_VGG}/{path}", f"{name}/{Path(path).name}", pictures_to(f"{name}/jpg"))
            for path in images
        ),
    )


def _voc(year: int, archives: dict[str, str]) -> tuple[Published, ...]:
    return tuple(
        Published(f"{_PASCAL}/voc{year}/{name}", name, without("VOCdevkit"), f"md5:{md5}")
        for name, md5 in archives.items()
    )


def _coco(*paths: str) -> tuple[Published, ...]:
    return tuple(Published(f"{_COCO}/{path}", Path(path).name, as_they_are) for path in paths)


def _copydays(part: str, sha256: str) -> tuple[Published, ...]:
    archive = f"copydays_{part}.tar.gz"
    checksum = f"sha256:{sha256}"
    return (Published(f"{_VISSL}/{archive}", archive, pictures_to(part), checksum),)


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "roxford5k": _landmarks("roxford5k", ["oxbuildings/oxbuild_images-v1.tgz"]),
    "rparis6k": _landmarks(
        "rparis6k", ["parisbuildings/paris_1-v1.tgz", "parisbuildings/paris_2-v1.tgz"]
    ),
    "copydays/original": _copydays(
        "original", "8b85b7914fd0145bc258bde3440f6a622243ca91ee085fe2025ce7bdeb0bfb8e"
    ),
    "copydays/strong": _copydays(
        "strong", "7852c64aa4a37e8329ce08159fc947c16f09c66737db0a2479a90fc9ae40760c"
    ),
    "voc2007": _voc(
        2007,
        {
            "VOCtrainval_06-Nov-2007.tar": "c52e279531787c972589f7e41ab4ae64",
            "VOCtest_06-Nov-2007.tar": "b6e924de25625d8de591ea690078ad9f",
        },
    ),
    "voc2012": _voc(2012, {"VOCtrainval_11-May-2012.tar": "6cd6e144f989b92b3379bac3b3de84fd"}),
    "coco/train2017": _coco(_COCO_BOXES, "zips/train2017.zip"),
    "coco/val2017": _coco(_COCO_BOXES, "zips/val2017.zip"),
    # The checksum is that of TensorFlow Datasets (davis/checksums.tsv).
    "davis": (
        Published(
            "https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip",
            "DAVIS-2017-trainval-480p.zip",
            without("DAVIS"),
            "sha256:e3d0b5b77c3d031b000a19e0e25e3e2cac65d183755601bc2cf066df1a2aa492",
        ),
    ),
}
