"""Patches of photographs inside scikit-image and scikit-learn: real pixels without a download."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unlabeled.config.ranges import at_least
from unlabeled.data.decode import BrokenImage, decode_file
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.sources.arrays import ArraySource
from unlabeled.data.sources.base import Split
from unlabeled.data.sources.installed_files import installed_file
from unlabeled.errors import DataError, EnvironmentProblem
from unlabeled.registry import register

# Packages, and files inside their wheels; nothing is ever fetched.
PICTURES: dict[str, tuple[str, str]] = {
    file.partition(".")[0]: (package, f"{folder}/{file}")
    for package, folder, files in (
        (
            "skimage",
            "data",
            "astronaut.png brick.png camera.png cell.png chelsea.png clock_motion.png coffee.png "
            "coins.png grass.png gravel.png hubble_deep_field.jpg ihc.png moon.png "
            "motorcycle_left.png page.png retina.jpg rocket.jpg text.png",
        ),
        ("sklearn", "datasets/images", "china.jpg flower.jpg"),
    )
    for file in files.split()
}


@register("dataset", "photo_patches")
class PhotoPatches(ArraySource):
    """Square patches of 20 photographs; the class is the photograph a patch was cut from.

    A patch has a side uniform in min_side..max_side and a uniform position, lies entirely inside
    the columns of its split's region, and is resized to image_size (antialiased bilinear). The
    regions do not overlap, so no pixel is in both splits. 20-NN by cosine on raw pixels, each patch
    centred, votes weighted by exp(s / 0.07), is right for 41 % of the test patches (grey: 23 %);
    chance is 5 %.
    Where a region is smaller than max_side, sides end at what fits. DataError if min_side does not
    fit; EnvironmentProblem if the photographs are not installed.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        image_size: int = 32
        """Side of the images, in pixels."""
        min_side: int = 48
        """Smallest side of a patch, in pixels of the photograph."""
        max_side: int = 96
        """Largest side of a patch, in pixels of the photograph."""
        train_per_picture: int = 200
        """Training patches cut from each photograph."""
        test_per_picture: int = 60
        """Test patches cut from each photograph."""
        train_region: tuple[float, float] = (0.0, 0.65)
        """Columns that training patches lie in, as shares of the width."""
        test_region: tuple[float, float] = (0.6667, 1.0)
        """Columns that test patches lie in, as shares of the width."""
        seed: int = 0
        """What patches are cut; the run's own seed does not change the data set."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from at_least(
                self, 1, "image_size", "min_side", "train_per_picture", "test_per_picture"
            )
            if self.max_side < self.min_side:
                yield "max_side", f"must be at least min_side={self.min_side}, got {self.max_side}"
            for name in ("train_region", "test_region"):
                low, high = getattr(self, name)
                if not 0 <= low < high <= 1:
                    yield name, f"must be shares 0 <= left < right <= 1, got {[low, high]}"

    def __init__(self, config: Config, *, split: Split) -> None:
        train = split == "train"
        count = config.train_per_picture if train else config.test_per_picture
        size = config.image_size
        images = np.empty((len(PICTURES), count, size, size, 3), dtype=np.uint8)
        for number, name in enumerate(PICTURES):
            # The view of the key keeps the two splits' draws apart.
            draws = uniforms(SampleKey(config.seed, 0, number), 0 if train else 1, 3 * count)
            region = config.train_region if train else config.test_region
            _cut(name, region, draws.reshape(count, 3), config, images[number])
        labels = np.repeat(np.arange(len(PICTURES)), count)
        flat = images.reshape(-1, size, size, 3)
        super().__init__(flat, labels, tuple(PICTURES), f"photo_patches/{split}")


def _cut(
    name: str,
    region: tuple[float, float],
    draws: np.ndarray,
    config: PhotoPatches.Config,
    patches: np.ndarray,
) -> None:
    """Fill `patches` [count, size, size, 3] from uniforms `draws` [count, 3]: side, left, top."""
    picture = Image.fromarray(_photograph(name))
    first, last = round(region[0] * picture.width), round(region[1] * picture.width)
    largest = min(config.max_side, last - first, picture.height)
    if largest < config.min_side:
        raise DataError(
            f"photo_patches: a patch of min_side={config.min_side} px does not fit into columns "
            f"{first}..{last} of {name} ({picture.width} x {picture.height}); widen the region "
            "or lower min_side"
        )
    for patch, (side_draw, left_draw, top_draw) in zip(patches, draws.tolist(), strict=True):
        side = config.min_side + int(side_draw * (largest - config.min_side + 1))
        left = first + int(left_draw * (last - first - side + 1))
        top = int(top_draw * (picture.height - side + 1))
        cut = picture.crop((left, top, left + side, top + side))
        size = (config.image_size, config.image_size)
        patch[...] = np.asarray(cut.resize(size, Image.Resampling.BILINEAR))


def _photograph(name: str) -> np.ndarray:
    package, file = PICTURES[name]
    path = installed_file(package, file)
    fault = f"{package} is not installed"
    if path is not None:
        try:
            return decode_file(path)
        except BrokenImage as error:
            fault = f"{path}: {error}"
    raise EnvironmentProblem(
        f"photo_patches needs the photographs inside scikit-image and scikit-learn, but {fault}; "
        "pip install --upgrade scikit-image scikit-learn"
    )
