from __future__ import annotations

import hashlib
import pickle
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from skimage import data
from sklearn.datasets import load_sample_image

from unlabeled.data.pixels.base import STEPS, Step, Steps, ViewPlan
from unlabeled.data.pixels.compiled import Compiled
from unlabeled.data.pixels.geometry import Box, Interpolation
from unlabeled.data.pixels.reference import Reference
from unlabeled.data.pixels.renderer import Renderer
from unlabeled.data.types import ViewSpec
from unlabeled.errors import EnvironmentProblem

read: Callable[[], Any] = data.astronaut
ASTRONAUT: np.ndarray = read()
IMAGES: dict[str, np.ndarray] = {
    "astronaut": ASTRONAUT,
    "china": load_sample_image("china.jpg"),
    "noise": np.random.default_rng(0).integers(0, 256, (150, 140, 3), dtype=np.uint8),
    "edges": np.random.default_rng(1).integers(0, 2, (150, 140, 3), dtype=np.uint8) * 255,
}
BACKENDS: tuple[Renderer, ...] = (Reference(), Compiled())
# Less than a vector, one, one and a bit; less than a tile of pixels, and several with a rest.
SIZES = (1, 2, 7, 15, 16, 17, 47, 48, 49, 97)


def plan(
    size: int, box: Box, steps: Steps = (), interpolation: Interpolation = "bilinear"
) -> ViewPlan:
    return ViewPlan(ViewSpec(size, "global"), box, interpolation, steps)


def render(renderer: Renderer, image: np.ndarray, plans: Sequence[ViewPlan]) -> list[np.ndarray]:
    out = [np.full((3, plan.spec.size, plan.spec.size), 99, np.uint8) for plan in plans]
    renderer(image, plans, out)
    return out


def assert_equal(image: np.ndarray, plans: Sequence[ViewPlan]) -> None:
    """The compiled views are the reference's, bit for bit."""
    reference, compiled = (render(renderer, image, plans) for renderer in BACKENDS)
    for one, theirs, ours in zip(plans, reference, compiled, strict=True):
        assert np.array_equal(theirs, ours), (one, np.abs(theirs.astype(int) - ours).max())


def random_step(rng: random.Random) -> Step:
    name = rng.choice(list(STEPS))
    if name == "hue":
        return name, rng.uniform(-0.5, 0.5)
    if name == "solarize":
        return name, float(rng.randint(0, 256))
    if name == "gaussian_blur":
        return name, rng.choice([rng.uniform(0.1, 2.0), rng.uniform(0.0, 12.0)])
    return name, rng.randint(0, 2 * 8192) / 8192


FACTORS = (0.0, 1 / 8192, 0.2, 0.731, 1.0, 1.37, 1.8, 4.0, 65535 / 8192, 8.0, 9.5, 1 / 3)
STEPS_TO_TRY: dict[str, Sequence[float]] = {
    "horizontal_flip": (0.0,),
    "vertical_flip": (0.0,),
    "grayscale": (0.0,),
    "brightness": FACTORS,
    "contrast": FACTORS,
    "saturation": FACTORS,
    "hue": (-0.5, -0.2, -0.1003, -0.001, 0.0, 0.003, 0.0999, 0.2, 0.5),
    "solarize": (0.0, 1.0, 127.5, 128.0, 255.0, 256.0),
    "gaussian_blur": (0.0, 0.1, 0.5, 1.0, 1.41, 1.42, 2.0, 2.5, 7.7, 40.0, 5000.0),
}


def test_every_step_is_tried() -> None:
    assert set(STEPS_TO_TRY) == set(STEPS)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("image", IMAGES)
def test_step_is_bit_equal(image: str, name: str) -> None:
    """In boxes of the view's size: the resize leaves them as they are."""
    steps = [(name, number) for number in STEPS_TO_TRY[name]]
    assert_equal(
        IMAGES[image],
        [plan(size, (9, 5, 9 + size, 5 + size), (step,)) for step in steps for size in SIZES],
    )


@pytest.mark.slow
@pytest.mark.parametrize("shift", [-0.37, 0.0, 0.2])
def test_hue_of_every_colour(shift: float) -> None:
    levels = np.arange(256, dtype=np.uint8)
    channels = np.meshgrid(levels, levels, levels, indexing="ij")
    colours = np.stack([channel.ravel() for channel in channels], axis=1).reshape(4096, 4096, 3)
    whole = (0, 0, 4096, 4096)
    assert_equal(colours, [plan(4096, whole, (("hue", shift),))])


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_is_bit_equal(image: str, interpolation: Interpolation) -> None:
    """Single pixels, lines, upscaling, shrinking by much; wide, square and tall."""
    boxes = [
        (3, 4, 4, 5),
        (0, 0, 140, 1),
        (7, 0, 8, 150),
        (5, 6, 8, 17),
        (5, 6, 25, 20),
        (0, 0, 140, 150),
        (11, 12, 131, 60),
        (20, 10, 70, 145),
        (20, 10, 120, 110),
    ]
    for flip in ((), (("horizontal_flip", 0.0),)):
        plans = [plan(size, box, flip, interpolation) for size in SIZES for box in boxes]
        assert_equal(IMAGES[image], plans)


@pytest.mark.parametrize("shape", [(2, 30000), (30000, 3), (33, 5000)])
def test_resize_of_extreme_shapes_is_bit_equal(shape: tuple[int, int]) -> None:
    """More taps than any image of a data set gives, and more columns."""
    image = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    height, width = shape
    box = (0, 0, width, height)
    assert_equal(image, [plan(20, box), plan(3, box, (), "bicubic"), plan(1, box)])


def weights(length: int, size: int, interpolation: Interpolation) -> np.ndarray:
    """[size, length] of the antialiased filter, written down from its definition."""
    scale = length / size
    stretch = max(scale, 1.0)
    centres = (np.arange(size)[:, None] + 0.5) * scale
    x = np.abs(np.arange(length)[None] + 0.5 - centres) / stretch
    if interpolation == "bilinear":
        matrix = np.clip(1 - x, 0, None)
    else:
        inner = 1.5 * x**3 - 2.5 * x**2 + 1
        outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        matrix = np.where(x < 1, inner, np.where(x < 2, outer, 0.0))
    normalised: np.ndarray = matrix / matrix.sum(axis=1, keepdims=True)
    return normalised


@pytest.mark.parametrize("size", [5, 33, 200])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_is_the_filter_of_the_definition(interpolation: Interpolation, size: int) -> None:
    """But for two roundings; in mid greys, where no overshoot is clipped."""
    image = IMAGES["china"][:180, 30:260] // 2 + 64
    rows, columns = weights(180, size, interpolation), weights(230, size, interpolation)
    exact = np.stack([rows @ channel @ columns.T for channel in image.transpose(2, 0, 1)])
    (ours,) = render(BACKENDS[1], image, [plan(size, (0, 0, 230, 180), (), interpolation)])
    assert np.abs(ours - exact).max() < 1.2
    assert abs((ours - exact).mean()) < 0.05


@pytest.mark.parametrize("image", IMAGES)
def test_programs_of_any_steps_are_bit_equal(image: str) -> None:
    """Contrast after contrast, blur before jitter, flips in between."""
    rng = random.Random(image)
    plans = []
    for _ in range(60):
        steps = tuple(random_step(rng) for _ in range(rng.randint(0, 8)))
        left, top = rng.randint(0, 60), rng.randint(0, 60)
        box = (left, top, left + rng.randint(1, 80), top + rng.randint(1, 90))
        plans.append(plan(rng.choice([*SIZES, rng.randint(1, 130)]), box, steps))
    assert_equal(IMAGES[image], plans)


def test_views_of_swav_are_bit_equal() -> None:
    rng = random.Random(0)
    plans = []
    for size in (224, 224, *[96] * 6) * 3:
        jitter: list[Step] = [
            ("brightness", round(rng.uniform(0.2, 1.8) * 8192) / 8192),
            ("contrast", round(rng.uniform(0.2, 1.8) * 8192) / 8192),
            ("saturation", round(rng.uniform(0.2, 1.8) * 8192) / 8192),
            ("hue", rng.uniform(-0.2, 0.2)),
        ]
        rng.shuffle(jitter)
        others: list[Step] = [("grayscale", 0.0), ("gaussian_blur", rng.uniform(0.1, 2.0))]
        steps = [("horizontal_flip", 0.0)] * rng.randint(0, 1) + jitter + others[-size % 3 :]
        width, height = rng.randint(80, 500), rng.randint(80, 400)
        left, top = rng.randint(0, 512 - width), rng.randint(0, 512 - height)
        plans.append(plan(size, (left, top, left + width, top + height), tuple(steps)))
    assert_equal(ASTRONAUT, plans)


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_plain_images_stay_plain(level: int) -> None:
    image = np.full((71, 90, 3), level, np.uint8)
    names = ("horizontal_flip", "hue", "grayscale", "gaussian_blur", "contrast", "saturation")
    steps = tuple((name, 0.8) for name in names)
    for interpolation in ("bilinear", "bicubic"):
        for view in render(
            BACKENDS[1], image, [plan(size, (1, 2, 88, 70), steps, interpolation) for size in SIZES]
        ):
            assert (view == level).all()


def test_same_bytes_in_any_number_of_threads() -> None:
    rng = random.Random(5)
    work = []
    for _ in range(16):
        views = []
        for left in range(8):
            steps = tuple(random_step(rng) for _ in range(5))
            views.append(plan(rng.randint(9, 300), (left, 0, left + 90, 100), steps))
        work.append(views)
    renderer = Compiled()

    def digest(plans: list[ViewPlan]) -> str:
        views = render(renderer, ASTRONAUT, plans)
        return hashlib.sha256(b"".join(view.tobytes() for view in views)).hexdigest()

    alone = [digest(plans) for plans in work]
    for threads in (1, 2, 4):
        with ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(digest, work)) == alone


def test_other_threads_run_meanwhile() -> None:
    """One that held the GIL until the last view was made could not be watched."""
    plans = [plan(300, (0, 0, 512, 512), (("gaussian_blur", 2.0),))] * 100
    views = [np.full((3, 300, 300), 99, np.uint8) for _ in plans]
    seen = False
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(Compiled(), ASTRONAUT, plans, views)
        while not future.done():
            seen |= bool((views[0] != 99).any() and (views[-1] == 99).all())
    assert seen


def test_writes_nothing_but_its_row_of_the_batch() -> None:
    batch = np.full((5, 3, 33, 33), 99, np.uint8)
    steps = (("gaussian_blur", 1.0), ("vertical_flip", 0.0), ("contrast", 0.5))
    Compiled()(ASTRONAUT, [plan(33, (5, 6, 205, 306), steps)], [batch[2]])
    assert (batch[[0, 1, 3, 4]] == 99).all()
    assert (batch[2] != 99).any()


def test_image_may_lie_in_memory_as_it_likes() -> None:
    """Read-only, as PIL's arrays are; a part of another; mirrored."""
    frozen = ASTRONAUT.copy()
    frozen.flags.writeable = False
    for image in (frozen, frozen[10:300:2, 7:250], frozen[:, ::-1], frozen[..., ::-1]):
        assert_equal(np.ascontiguousarray(image), [plan(40, (1, 2, 120, 100))])
        strided, contiguous = (
            render(BACKENDS[1], one, [plan(40, (1, 2, 120, 100))])[0]
            for one in (image, np.ascontiguousarray(image))
        )
        assert np.array_equal(strided, contiguous)


def test_no_views_of_an_image() -> None:
    assert render(Compiled(), ASTRONAUT, []) == []


@pytest.mark.parametrize(
    "box",
    [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 513, 5), (0, 0, 5, 513), (5, 0, 5, 9), (0, 9, 5, 9)],
)
def test_refuses_boxes_that_leave_the_image(box: Box) -> None:
    with pytest.raises(ValueError, match="box"):
        render(BACKENDS[1], ASTRONAUT, [plan(8, box)])


def test_refuses_arrays_that_are_not_what_the_plan_says() -> None:
    good = np.zeros((3, 8, 8), np.uint8)
    frozen = good.copy()
    frozen.flags.writeable = False
    bad = [good[:, :7], good.astype(np.int8), good.transpose(0, 2, 1), np.zeros((6, 8, 8))[::2]]
    for view in (*bad, frozen, np.zeros((3, 9, 9), np.uint8)):
        with pytest.raises(ValueError, match="view"):
            Compiled()(ASTRONAUT, [plan(8, (0, 0, 9, 9))], [view])
    for image in (ASTRONAUT[..., 0], ASTRONAUT.astype(float), np.dstack([ASTRONAUT] * 2)):
        with pytest.raises(ValueError, match="RGB"):
            Compiled()(image, [plan(8, (0, 0, 9, 9))], [good])


def test_travels_to_other_processes() -> None:
    renderer = Compiled()
    renderer.prepare()
    render(renderer, ASTRONAUT, [plan(8, (0, 0, 9, 9))])
    again = pickle.loads(pickle.dumps(renderer))
    mine, its = (render(one, ASTRONAUT, [plan(8, (0, 0, 9, 9))])[0] for one in (renderer, again))
    assert np.array_equal(mine, its)


def test_says_what_to_do_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unlabeled.data.pixels.kernels.compile", None)
    with pytest.raises(EnvironmentProblem, match="pip install numba"):
        Compiled().prepare()
