"""The kernels read the image and write the views, and not a byte besides.

In a process of its own, images and views end where memory ends: the pages before and behind them
may not be touched, so a step outside ends the process. The kernels' own memory is checked by a
second run, with numba's bounds checks and theirs compiled in.
"""

from __future__ import annotations

import pytest

from tests_support.commands import python

PROGRAM = """
import ctypes
import mmap
import random
import sys

import numpy as np

from unlabeled.data.pixels.base import STEPS, ViewPlan
from unlabeled.data.pixels.compiled import Compiled
from unlabeled.data.pixels.reference import Reference
from unlabeled.data.types import ViewSpec

PAGE = mmap.PAGESIZE
protect = ctypes.CDLL(None, use_errno=True).mprotect


def between_forbidden_pages(count, at_end):
    pages = -(-count // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (start, start + (pages + 1) * PAGE):
        assert protect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) == 0
    skipped = PAGE + (pages * PAGE - count if at_end else 0)
    return np.frombuffer(memory, np.uint8, count, skipped)


def number(name, rng):
    if name == "hue":
        return rng.uniform(-0.5, 0.5)
    if name == "solarize":
        return rng.uniform(0, 256)
    if name == "gaussian_blur":
        return rng.choice([0.0, 0.1, rng.uniform(0.1, 3), rng.uniform(3, 60), 1e4])
    return rng.choice([rng.randint(0, 16384) / 8192, rng.uniform(0, 20)])


def draw_plan(width, height, rng):
    left, right = sorted(rng.sample(range(width + 1), 2))
    top, bottom = sorted(rng.sample(range(height + 1), 2))
    if rng.random() < 0.3:
        left, top, right, bottom = 0, 0, width, height
    names = rng.choices(list(STEPS), k=rng.randint(0, 5))
    size = rng.choice([1, 2, 15, 16, 17, rng.randint(1, 50), rng.randint(1, 130)])
    return ViewPlan(
        ViewSpec(size, "global"),
        (left, top, right, bottom),
        rng.choice(["bilinear", "bicubic"]),
        tuple((name, number(name, rng)) for name in names),
    )


rng = random.Random(0)
reference, compiled = Reference(), Compiled()
wrong = 0
for turn in range(int(sys.argv[1])):
    width, height = rng.choices([1, 2, 5, 6, 15, 16, 17, *range(18, 300, 7)], k=2)
    if turn % 100 == 0:
        width, height = rng.choice([(30000, 2), (2, 30000), (3000, 70)])
    pixels = between_forbidden_pages(3 * width * height, rng.random() < 0.5)
    pixels[...] = np.frombuffer(rng.randbytes(len(pixels)), np.uint8)
    image = pixels.reshape(height, width, 3)
    plans = [draw_plan(width, height, rng) for _ in range(rng.randint(1, 4))]
    views = []
    for plan in plans:
        size = plan.spec.size
        memory = between_forbidden_pages(3 * size * size, rng.random() < 0.5)
        views.append(memory.reshape(3, size, size))
    compiled(image, plans, views)
    expected = [np.empty_like(view) for view in views]
    reference(image, plans, expected)
    wrong += sum((one != other).any() for one, other in zip(views, expected))
print("wrong views:", wrong)
"""


@pytest.mark.slow
def test_thousands_of_plans_touch_nothing_outside() -> None:
    result = python("-c", PROGRAM, "2000")
    assert (result.returncode, result.stdout) == (0, "wrong views: 0\n"), result.stderr


@pytest.mark.slow
def test_thousands_of_plans_pass_the_bounds_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    result = python("-c", PROGRAM, "1500")
    assert (result.returncode, result.stdout) == (0, "wrong views: 0\n"), result.stderr
