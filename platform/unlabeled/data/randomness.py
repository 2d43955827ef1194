"""Counter-based random numbers: a draw is a function of what it is for, not of what came before.

A word sequence (seed, epoch, sample, view) is absorbed into a 64-bit state with the finaliser of
splitmix64 (Steele, Lea, Flood 2014), which is a bijection of 64-bit words; the draws are that
generator's outputs at counters 1, 2, ... from this state. No generator object exists, so draws do
not depend on worker count, prefetching or on where a run was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: splitmix64's increment
MULTIPLIER_1 = 0xBF58476D1CE4E5B9  # splitmix64's finaliser ("variant 13" of Stafford)
MULTIPLIER_2 = 0x94D049BB133111EB
_U_MULTIPLIER_1 = np.uint64(MULTIPLIER_1)
_U_MULTIPLIER_2 = np.uint64(MULTIPLIER_2)
_SHIFT_30, _SHIFT_27, _SHIFT_31, _SHIFT_11 = (np.uint64(bits) for bits in (30, 27, 31, 11))
_STEPS = np.arange(1, 257, dtype=np.uint64) * np.uint64(GAMMA)  # counters 1..256, made once


@dataclass(frozen=True)
class SampleKey:
    """What the randomness of a sample's views is a function of, beside the view's own number."""

    seed: int
    epoch: int
    sample: int


def mix(*words: int) -> int:
    """A 64-bit hash of integers; negative ones count modulo 2^64. Bijective in each word alone."""
    state = 0
    for word in words:
        state = _absorb(state, word)
    return state


def _absorb(state: int, word: int) -> int:
    state = ((state ^ (word & _MASK)) + GAMMA) & _MASK
    state = ((state ^ (state >> 30)) * MULTIPLIER_1) & _MASK
    state = ((state ^ (state >> 27)) * MULTIPLIER_2) & _MASK
    return state ^ (state >> 31)


def mix_array(words: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser on uint64 words of any shape; `words` is overwritten and returned."""
    words ^= words >> _SHIFT_30
    words *= _U_MULTIPLIER_1
    words ^= words >> _SHIFT_27
    words *= _U_MULTIPLIER_2
    words ^= words >> _SHIFT_31
    return words


def uniforms(key: SampleKey, view: int, count: int) -> np.ndarray:
    """Float64 [count] in [0, 1), multiples of 2^-53: a pure function of its arguments.

    A longer request begins with the same numbers, so a consumer added behind others changes
    nothing for them. The epoch may be negative (-1: a pass before training).
    """
    state = mix(key.seed, key.epoch, key.sample, view)
    draws: np.ndarray = _uniforms([state], count)[0]
    return draws


def sample_word(key: SampleKey) -> int:
    """The state that all views of a sample start from."""
    return mix(key.seed, key.epoch, key.sample)


def view_uniforms(key: SampleKey, views: int, count: int) -> list[list[float]]:
    """`uniforms(key, view, count)` of each of the first `views` views, as plain numbers."""
    sample = sample_word(key)
    draws: list[list[float]] = _uniforms([_absorb(sample, v) for v in range(views)], count).tolist()
    return draws


def _uniforms(states: list[int], count: int) -> np.ndarray:
    if count <= len(_STEPS):
        steps = _STEPS[:count]
    else:
        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GAMMA)
    words = mix_array(steps + np.array(states, dtype=np.uint64)[:, None])
    draws: np.ndarray = (words >> _SHIFT_11) * 2.0**-53
    return draws
