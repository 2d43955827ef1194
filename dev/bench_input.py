"""How fast SwAV's views are made from JPEG files: ours, the official pipeline and the peers.

    python dev/bench_input.py                # one thread, interleaved: the table
    python dev/bench_input.py --loaders      # end to end through data loaders, a worker a core
    python dev/bench_input.py --readme       # both, into README.md

2 x 224 + 6 x 96 crops of 500 x 375 photographs in memory (dev/photographs.py). The reference is the
official SwAV pipeline: PIL and torchvision v1, float32 tensors out. Each repetition gives the same
few files to every pipeline, in random order; a ratio is the median over repetitions of (CPU time of
the reference / CPU time of the pipeline), with quartiles. Nothing is timed before our views agree
with the reference's arithmetic on the same random numbers. Peers are measured where installed.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "dev")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torchvision.transforms as v1  # noqa: E402
from bench_loaders import loader_table  # noqa: E402
from photographs import jpegs  # noqa: E402
from PIL import Image, ImageFilter  # noqa: E402
from readme_table import replace_table  # noqa: E402
from torchvision import io as tv_io  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from unlabeled.data.decode import decode_bytes  # noqa: E402
from unlabeled.data.randomness import SampleKey  # noqa: E402
from unlabeled.data.transforms.multi_crop import MultiCrop  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)
CROPS = ((224, (0.14, 1.0), 2), (96, (0.05, 0.14), 6))
Make = Callable[[bytes, int], object]


class _PilBlur:
    """SwAV's PILRandomGaussianBlur: probability 0.5, radius uniform in [0.1, 2]."""

    def __call__(self, image: Image.Image) -> Image.Image:
        if random.random() > 0.5:
            return image
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def official() -> Make:
    """The official SwAV pipeline: a list of eight normalised float32 tensors."""
    colour = v1.Compose(
        [
            v1.RandomApply([v1.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v1.RandomGrayscale(p=0.2),
        ]
    )
    chains = [
        v1.Compose(
            [
                v1.RandomResizedCrop(size, scale=scale),
                v1.RandomHorizontalFlip(p=0.5),
                v1.Compose([colour, _PilBlur()]),
                v1.ToTensor(),
                v1.Normalize(MEAN, STD),
            ]
        )
        for size, scale, count in CROPS
        for _ in range(count)
    ]

    def make(encoded: bytes, sample: int) -> object:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        return [chain(image) for chain in chains]

    return make


def torchvision_v2() -> Make:
    """The same operations of torchvision v2 on uint8 tensors."""
    colour = [
        v2.RandomHorizontalFlip(p=0.5),
        v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
        v2.RandomGrayscale(p=0.2),
        # 13 taps hold PIL's support at the largest sigma.
        v2.RandomApply([v2.GaussianBlur(13, sigma=(0.1, 2.0))], p=0.5),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(MEAN), list(STD)),
    ]
    chains = [
        v2.Compose([v2.RandomResizedCrop(size, scale=scale, antialias=True), *colour])
        for size, scale, count in CROPS
        for _ in range(count)
    ]

    def make(encoded: bytes, sample: int) -> object:
        buffer = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        image = tv_io.decode_jpeg(buffer, mode=tv_io.ImageReadMode.RGB)
        return [chain(image) for chain in chains]

    return make


def lightly() -> Make:
    """lightly's SwaVTransform as it comes, with SwAV's crop scales."""
    from lightly.transforms.swav_transform import SwaVTransform

    transform = SwaVTransform(crop_min_scales=(0.14, 0.05), crop_max_scales=(1.0, 0.14))

    def make(encoded: bytes, sample: int) -> object:
        return transform(Image.open(io.BytesIO(encoded)).convert("RGB"))

    return make


def solo_learn() -> Make:
    """solo-learn's full multi-crop pipeline with SwAV's numbers."""
    from omegaconf import OmegaConf
    from solo.data.pretrain_dataloader import (
        FullTransformPipeline,
        NCropAugmentation,
        build_transform_pipeline,
    )

    transforms = []
    for size, scale, count in CROPS:
        settings = OmegaConf.create(
            {
                "rrc": {"enabled": True, "crop_min_scale": scale[0], "crop_max_scale": scale[1]},
                "color_jitter": {
                    **{"prob": 0.8, "brightness": 0.8, "contrast": 0.8},
                    **{"saturation": 0.8, "hue": 0.2},
                },
                "grayscale": {"prob": 0.2},
                "gaussian_blur": {"prob": 0.5},
                "solarization": {"prob": 0.0},
                "equalization": {"prob": 0.0},
                "horizontal_flip": {"prob": 0.5},
                "crop_size": size,
                "num_crops": count,
            }
        )
        transforms.append(NCropAugmentation(build_transform_pipeline("imagenet", settings), count))
    transform = FullTransformPipeline(transforms)

    def make(encoded: bytes, sample: int) -> object:
        return transform(Image.open(io.BytesIO(encoded)).convert("RGB"))

    return make


def ours(backend: str, *, normalise: bool = False) -> Make:
    """Our pipeline into one set of uint8 arrays, as batches are filled; or on to float32."""
    pipeline = MultiCrop(replace(MultiCrop.Config(), backend=backend))  # type: ignore[arg-type]
    views = [np.empty((3, spec.size, spec.size), dtype=np.uint8) for spec in pipeline.views]
    tables = [np.empty((pipeline.deferred_steps, 2)) for _ in views if pipeline.deferred_steps]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def make(encoded: bytes, sample: int) -> object:
        pipeline.write(decode_bytes(encoded), SampleKey(0, 0, sample), views, tables)
        if not normalise:
            return views
        tensors = (torch.from_numpy(view).to(torch.float32) for view in views)
        return [tensor.div_(255).sub_(mean).div_(std) for tensor in tensors]

    return make


def decode_only() -> Make:
    """What no pipeline can be faster than: our decoder alone."""

    def make(encoded: bytes, sample: int) -> object:
        return decode_bytes(encoded)

    return make


PIPELINES: dict[str, Callable[[], Make]] = {
    "official SwAV (PIL, torchvision v1)": official,
    "solo-learn": solo_learn,
    "lightly": lightly,
    "torchvision v2, uint8 tensors": torchvision_v2,
    "ours, reference (PIL)": lambda: ours("reference"),
    "ours, portable (without numba)": lambda: ours("portable"),
    "ours": lambda: ours("compiled"),
    "ours, normalised on the host": lambda: ours("compiled", normalise=True),
    "ours, colour left to the device": lambda: ours("device"),
    "decoding alone": decode_only,
}
REFERENCE = next(iter(PIPELINES))


def check_equal(files: list[bytes]) -> float:
    """Mean grey levels between the compiled and the reference backend; stops the script above 0.5.

    The reference backend is torchvision's arithmetic bit for bit (tests/data/transforms).
    """
    differences = []
    compiled, reference = (
        MultiCrop(MultiCrop.Config(backend=b)) for b in ("compiled", "reference")
    )
    for sample, encoded in enumerate(files[:20]):
        image, key = decode_bytes(encoded), SampleKey(0, 0, sample)
        if not np.array_equal(image, np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))):
            raise SystemExit("the decoder does not give PIL's pixels")
        for one, other in zip(compiled(image, key), reference(image, key), strict=True):
            differences.append(np.abs(one.astype(int) - other).mean())
    mean = float(np.mean(differences))
    if mean > 0.5:
        raise SystemExit(f"our views differ from the reference by {mean:.2f} grey levels")
    return mean


def measure(files: list[bytes], repetitions: int, images: int) -> dict[str, np.ndarray]:
    """CPU seconds an image, [repetitions], of every pipeline that is installed."""
    makers: dict[str, Make] = {}
    for name, build in PIPELINES.items():
        try:
            makers[name] = build()
        except ImportError as error:
            print(f"without {name}: {error}", file=sys.stderr)
    order = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for repetition in range(-1, repetitions):  # the first one warms up
        chosen = [int(i) for i in order.integers(len(files), size=images)]
        for name in order.permutation(list(makers)).tolist():
            started = time.thread_time()
            for index in chosen:
                makers[name](files[index], index)
            if repetition >= 0:
                seconds[name].append((time.thread_time() - started) / images)
    return {name: np.array(values) for name, values in seconds.items()}


def table(seconds: dict[str, np.ndarray]) -> str:
    """Markdown: images a second and ratios, medians with quartiles."""
    lines = ["| one thread | ms / image | images / s | ratio (quartiles) |", "|---|---|---|---|"]
    for name, values in seconds.items():
        low, middle, high = np.percentile(seconds[REFERENCE] / values, [25, 50, 75])
        median = float(np.median(values))
        lines.append(
            f"| {name} | {1000 * median:.2f} | {1 / median:.0f} "
            f"| {middle:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--images", type=int, default=24, help="files a repetition")
    parser.add_argument("--loaders", action="store_true", help="end to end instead")
    parser.add_argument("--readme", action="store_true", help="both tables, into README.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = jpegs(200)
    difference = check_equal(files)
    sizes = [len(encoded) for encoded in files]
    texts = []
    if not arguments.loaders or arguments.readme:
        texts.append(table(measure(files, arguments.repetitions, arguments.images)))
    if arguments.loaders or arguments.readme:
        texts.append(loader_table(files, official))
    texts.append(
        f"{len(files)} files, {np.mean(sizes) / 1000:.0f} KB on average; ours differs from the "
        f"reference by {difference:.2f} grey levels on average. Measured by `python "
        f"dev/bench_input.py` on {_processor()}, {len(os.sched_getaffinity(0))} hardware threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}."
    )
    print("\n\n".join(texts))
    if arguments.readme:
        replace_table("bench_input", "\n\n".join(texts))


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
