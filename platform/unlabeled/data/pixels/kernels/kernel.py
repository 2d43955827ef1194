"""How the kernels are compiled: without the GIL, in IEEE arithmetic, inside what calls them."""

from __future__ import annotations

from typing import Any

from numba import njit

# error_model: division by zero gives what IEEE says, without a branch that raises. No fastmath:
# sums must not be reordered, nor products and sums be fused, or the bits would depend on the CPU.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

kernel = njit(**OPTIONS)
"""Decorates a function that is compiled on its own and linked into the one that calls it."""

inlined = njit(inline="always", **OPTIONS)
"""Decorates a function that is written out where it is called, before anything is compiled.

For single pixels, and for what only arranges calls of kernels: LLVM optimises a kernel again with
every kernel that calls it, so their nesting is what compilation takes its time for.
"""
