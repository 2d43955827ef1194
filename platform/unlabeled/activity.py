"""A count of what this process has done: it grows while a rank works, within a step too.

A pass over millions of images before an epoch, or a k-means of them, is no step; who watches for
ranks that hang must tell it from one.
"""

from __future__ import annotations

_done = 0


def note() -> None:
    """Something came to its end: a batch was handed out, a collective returned."""
    global _done
    _done += 1


def amount() -> int:
    """How much it is so far."""
    return _done
