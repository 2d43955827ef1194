from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from unlabeled.config.check import build_config
from unlabeled.data.pixels.base import Step, Steps, ViewPlan
from unlabeled.data.pixels.device import DeviceSteps
from unlabeled.data.pixels.reference import Reference
from unlabeled.data.pixels.table import CODES, write_steps
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.transforms.color_jitter import ColorJitter
from unlabeled.data.transforms.multi_crop import MultiCrop
from unlabeled.data.types import ViewSpec

SIZE = 48
PHOTOGRAPH: np.ndarray = data.astronaut()  # type: ignore[no-untyped-call]
NOISE = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)

EXACT: list[Step] = [
    ("horizontal_flip", 0.0),
    ("vertical_flip", 0.0),
    ("grayscale", 0.0),
    *[("solarize", threshold) for threshold in (0.0, 1.0, 128.0, 255.0, 256.0)],
    *[
        (name, factor)
        for name in ("brightness", "contrast", "saturation")
        for factor in (0.0, 1639 / 8192, 0.5, 0.731, 1.0, 11223 / 8192, 1.8, 4.0)
    ],
]
SIGMAS = (0.1, 0.35, 0.8, 1.0, 1.3, 1.414, 1.7, 1.93, 3.3, 9.0)


def crops(count: int) -> Tensor:
    """Uint8 [count, 3, SIZE, SIZE]: places of a photograph, the last one noise."""
    corners = np.random.default_rng(2).integers(0, 512 - SIZE, (count, 2))
    images = [PHOTOGRAPH[y : y + SIZE, x : x + SIZE].transpose(2, 0, 1) for y, x in corners]
    images[-1] = NOISE
    return torch.from_numpy(np.stack(images))


def table(programs: list[Steps], length: int | None = None) -> Tensor:
    rows = np.full((len(programs), length or max(map(len, programs)), 2), -1.0)
    for steps, row in zip(programs, rows, strict=True):
        write_steps(steps, row)
    return torch.from_numpy(rows)


def reference(images: Tensor, programs: list[Steps]) -> Tensor:
    """The same programs, image by image, by the backend that defines the pixels."""
    results = np.empty(images.shape, np.uint8)
    size = images.shape[-1]
    for image, steps, result in zip(images.numpy(), programs, results, strict=True):
        plan = ViewPlan(ViewSpec(size, "global"), (0, 0, size, size), "bilinear", steps)
        Reference()(np.ascontiguousarray(image.transpose(1, 2, 0)), [plan], [result])
    return torch.from_numpy(results)


def jitters(count: int) -> list[Steps]:
    """SwAV's colour jitter as drawn for `count` samples: four steps in 24 different orders."""
    operation = ColorJitter(ColorJitter.Config(p=1.0))
    return [operation.steps(uniforms(SampleKey(3, 0, i), 0, operation.draws)) for i in range(count)]


def difference(one: Tensor, other: Tensor) -> Tensor:
    return (one.int() - other.int()).abs()


def test_flips_blends_and_luma_are_bit_equal() -> None:
    programs: list[Steps] = [(step,) for step in EXACT]
    images = crops(len(programs))
    changed = DeviceSteps()(images, table(programs))
    for image, step in zip(difference(changed, reference(images, programs)), EXACT, strict=True):
        assert image.max() == 0, step


def test_chains_of_exact_steps_are_bit_equal() -> None:
    generator = np.random.default_rng(1)
    programs = [
        tuple(EXACT[i] for i in generator.integers(0, len(EXACT), generator.integers(0, 7)))
        for _ in range(40)
    ]
    images = crops(len(programs))
    assert torch.equal(DeviceSteps()(images, table(programs)), reference(images, programs))


def test_hue_is_nearly_always_equal() -> None:
    programs: list[Steps] = [
        (("hue", s),) for s in (-0.5, -0.2, -0.1, -0.001, 0.0, 0.0999, 0.2, 0.5, 0.1)
    ]
    images = crops(len(programs))
    off = difference(DeviceSteps()(images, table(programs)), reference(images, programs))
    assert (off == 0).float().mean(dim=(1, 2, 3)).min() >= 0.9995
    assert off.max() <= 6  # one 255th of the circle


def test_blur_is_within_a_level_and_nearly_always_equal() -> None:
    """Boxes of several lengths in one batch."""
    programs: list[Steps] = [(("gaussian_blur", sigma),) for sigma in SIGMAS]
    images = crops(len(programs))
    off = difference(DeviceSteps()(images, table(programs)), reference(images, programs))
    assert off.max() <= 1
    assert (off == 0).float().mean(dim=(1, 2, 3)).min() > 0.98


def test_the_jitter_chain_differs_by_a_twentieth_of_a_level() -> None:
    programs = jitters(60)
    assert len({tuple(str(step[0]) for step in table([s])[0]) for s in programs}) > 18
    images = crops(len(programs))
    off = difference(DeviceSteps()(images, table(programs)), reference(images, programs)).float()
    assert off.mean() < 0.005
    assert off.mean(dim=(1, 2, 3)).max() < 0.05


def mixed_programs() -> list[Steps]:
    programs = jitters(12)
    for number in range(12):
        more: Steps = (("grayscale", 0.0),) if number % 3 == 0 else ()
        more += (("gaussian_blur", 0.1 + number / 6),) if number % 2 == 0 else ()
        more += (("solarize", 100.0 + number),) if number % 4 == 0 else ()
        programs[number] += more
    programs[5] = ()
    programs[7] = (("horizontal_flip", 0.0), *programs[7])
    return programs


def test_every_image_comes_out_as_it_would_alone() -> None:
    programs = mixed_programs()
    images = crops(len(programs))
    together = DeviceSteps()(images, table(programs))
    for row, steps in enumerate(programs):
        alone = DeviceSteps()(images[row : row + 1], table([steps], 9))
        assert torch.equal(together[row], alone[0]), steps
    order = torch.randperm(len(programs))
    shuffled = DeviceSteps()(images[order], table(programs)[order])
    assert torch.equal(shuffled, together[order])


def test_images_without_steps_stay_and_the_input_is_left_alone() -> None:
    programs = mixed_programs()
    images = crops(len(programs))
    before = images.clone()
    changed = DeviceSteps()(images, table(programs))
    assert torch.equal(changed[5], images[5])
    assert torch.equal(images, before)
    for row in set(range(12)) - {5}:
        assert not torch.equal(changed[row], images[row])


@pytest.mark.parametrize("shape", [(4, 0, 2), (4, 3, 2), (0, 3, 2)])
def test_without_any_step_the_batch_is_returned_itself(shape: tuple[int, ...]) -> None:
    images = crops(4)[: shape[0]]
    assert DeviceSteps()(images, torch.zeros(shape, dtype=torch.float64)) is images


def test_zeros_between_steps_mean_nothing() -> None:
    images = crops(2)
    steps = table([(("contrast", 0.5), ("hue", 0.1))] * 2)
    gaps = torch.zeros(2, 5, 2, dtype=torch.float64)
    gaps[0, [0, 3]], gaps[1, [2, 4]] = steps[0], steps[1]
    assert torch.equal(DeviceSteps()(images, gaps), DeviceSteps()(images, steps))


def test_every_code_has_its_change() -> None:
    images = crops(len(CODES))
    rows = [[[float(code), 1.5]] for code in CODES.values()]
    changed = DeviceSteps()(images, torch.tensor(rows, dtype=torch.float64))
    assert all(not torch.equal(one, other) for one, other in zip(changed, images, strict=True))


def test_finished_views_are_nearly_those_of_the_reference() -> None:
    """SwAV's recipe: the same parameters, crops on the host, all else in batches."""
    crop_groups = [
        {"count": 2, "size": 64, "scale": [0.14, 1.0], "role": "global"},
        {"count": 2, "size": 32, "scale": [0.05, 0.14], "role": "local"},
    ]
    config = build_config(MultiCrop.Config, {"crops": crop_groups, "backend": "reference"})
    pipeline = MultiCrop(config)
    drawn = [pipeline.plan(512, 512, SampleKey(0, 1, sample)) for sample in range(24)]
    bare = [[plan._replace(steps=()) for plan in plans] for plans in drawn]
    tables = [table([plan.steps for plan in plans], 7) for plans in zip(*drawn, strict=True)]
    finished = DeviceSteps().finish(rendered(bare), tables)
    assert [tuple(view.shape[1:]) for view in finished] == [(3, 64, 64)] * 2 + [(3, 32, 32)] * 2
    for one, other in zip(finished, rendered(drawn), strict=True):
        off = difference(one, other).float()
        assert off.mean() < 0.05
        assert off.mean(dim=(1, 2, 3)).max() < 0.5


def rendered(samples: list[list[ViewPlan]]) -> list[Tensor]:
    """Every view [samples, 3, s, s] of the photograph, by the reference."""
    sizes = [plan.spec.size for plan in samples[0]]
    views = [np.empty((len(samples), 3, size, size), np.uint8) for size in sizes]
    for row, plans in enumerate(samples):
        Reference()(PHOTOGRAPH, plans, [view[row] for view in views])
    return [torch.from_numpy(view) for view in views]


def test_views_finished_together_are_those_finished_one_by_one() -> None:
    programs = mixed_programs()
    images, steps = crops(12), table(programs)
    views = [images[:6], images[6:], images[3:9, :, :20, :20].contiguous()]
    tables = [steps[:6], steps[6:], steps[3:9]]
    for view, rows, finished in zip(
        views, tables, DeviceSteps().finish(views, tables), strict=True
    ):
        assert torch.equal(finished, DeviceSteps()(view, rows))
