from __future__ import annotations

import itertools

import numpy as np
import pytest

from unlabeled.data.randomness import SampleKey, mix, uniforms, view_uniforms

MASK = (1 << 64) - 1


def splitmix64(state: int) -> int:
    """The generator's output function in plain integers, from Steele, Lea and Flood (2014)."""
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_mix_is_splitmix64() -> None:
    # The first output of splitmix64 seeded with 0, a published test vector.
    assert mix(0) == 0xE220A8397B1DCDAF


def test_uniforms_are_the_outputs_of_splitmix64_in_order() -> None:
    state = mix(7, -1 & MASK, 123, 4)
    gamma = 0x9E3779B97F4A7C15
    expected = [(splitmix64((state + gamma * (i + 1)) & MASK) >> 11) / 2**53 for i in range(300)]
    assert uniforms(SampleKey(7, -1, 123), 4, 300).tolist() == expected


def test_these_numbers_are_the_format() -> None:
    """Every recorded run depends on them; a change here breaks all resumes."""
    draws = uniforms(SampleKey(seed=0, epoch=0, sample=0), 0, 3)
    assert draws.tolist() == GOLDEN


GOLDEN = [0.47141042966848024, 0.7247520786262142, 0.3030308965844536]


@pytest.mark.parametrize("count", [0, 1, 35, 256, 257, 1000])
def test_a_longer_request_begins_with_the_same_numbers(count: int) -> None:
    key = SampleKey(3, 1, 4)
    draws = uniforms(key, 1, count)
    assert draws.shape == (count,) and draws.dtype == np.float64
    assert np.array_equal(draws, uniforms(key, 1, 2000)[:count])


def test_every_word_of_the_key_matters() -> None:
    keys = list(itertools.product((0, 1, 2), (-1, 0, 1), (0, 1, 10**12), (0, 1, 2)))
    streams = {tuple(uniforms(SampleKey(s, e, i), v, 2)) for s, e, i, v in keys}
    assert len(streams) == len(keys)


@pytest.mark.slow
def test_uniform_over_samples_and_independent_of_the_neighbour() -> None:
    draws = np.stack([uniforms(SampleKey(0, 0, sample), 0, 4) for sample in range(20_000)])
    assert draws.min() >= 0 and draws.max() < 1
    for column in draws.T:
        counts = np.histogram(column, bins=20, range=(0, 1))[0]
        chi_square = ((counts - 1000) ** 2 / 1000).sum()
        assert chi_square < 43.8  # 99.9 % quantile with 19 degrees of freedom
    assert abs(np.corrcoef(draws, rowvar=False) - np.eye(4)).max() < 4 / np.sqrt(20_000)
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 4 / np.sqrt(20_000)


def test_the_views_of_a_sample_are_drawn_together_as_they_are_alone() -> None:
    key = SampleKey(5, -1, 77)
    together = view_uniforms(key, 3, 300)
    assert len(together) == 3
    for view in range(3):
        assert together[view] == uniforms(key, view, 300).tolist()
