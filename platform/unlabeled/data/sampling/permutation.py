"""A permutation of range(N), computed and not stored: a keyed Feistel network with cycle walking.

Position p is written as (left, right) with left < a and right < b, where a = ceil(sqrt(N)) and
b = ceil(N / a). Each round adds a hash of one half to the other, modulo that half's size, which can
be undone whatever the hash is. The network permutes range(a * b); the fewer than a results that
are >= N are sent through it again until they are not (Black and Rogaway 2002), which keeps it a
permutation of range(N).
"""

from __future__ import annotations

import math

import numpy as np

from unlabeled.data.randomness import mix, mix_array

# Four rounds of random functions look random to sqrt(N) questions (Luby and Rackoff 1988); an epoch
# asks all N. Over 36,000 keys, the orders of 5 elements deviate by up to 36 % from equally likely
# with 8 rounds, and by no more than chance with 16 (6 elements: 135 %, and chance).
ROUNDS = 16


class Permutation:
    """The permutation of range(size) that belongs to a key (a few integers)."""

    def __init__(self, size: int, *key: int) -> None:
        if not 1 <= size <= 1 << 62:
            raise ValueError(f"a permutation needs 1 to 2^62 elements, got {size}")
        self.size = size
        left_size = math.isqrt(size - 1) + 1  # ceil(sqrt(size))
        self._sizes = (np.uint64(left_size), np.uint64(-(-size // left_size)))
        self._keys = [np.uint64(mix(*key, number)) for number in range(ROUNDS)]

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The elements (int64) at these positions, each in range(size)."""
        return self._walk(positions, forward=True)

    def inverse(self, elements: np.ndarray) -> np.ndarray:
        """The positions (int64) at which these elements stand."""
        return self._walk(elements, forward=False)

    def _walk(self, values: np.ndarray, *, forward: bool) -> np.ndarray:
        values = np.asarray(values, dtype=np.int64)
        if values.size and not (values.min() >= 0 and values.max() < self.size):
            raise IndexError(f"positions must lie in range({self.size})")
        result = self._network(values.astype(np.uint64), forward)
        outside = result >= self.size
        while outside.any():
            result[outside] = self._network(result[outside], forward)
            outside = result >= self.size
        return result.astype(np.int64)

    def _network(self, values: np.ndarray, forward: bool) -> np.ndarray:
        halves = list(np.divmod(values, self._sizes[1]))  # left < a, right < b
        for number in range(ROUNDS) if forward else reversed(range(ROUNDS)):
            changed, other = number % 2, 1 - number % 2
            modulus = self._sizes[changed]
            shift = mix_array(halves[other] + self._keys[number]) % modulus
            halves[changed] += shift if forward else modulus - shift
            halves[changed] %= modulus
        joined: np.ndarray = halves[0] * self._sizes[1] + halves[1]
        return joined
