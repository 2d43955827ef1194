"""Expected failures on the terminal."""

from __future__ import annotations

import sys

from unlabeled.errors import UserError
from unlabeled.printable import printable


def tell(error: UserError) -> None:
    """A line of standard error for each of its own."""
    for line in str(error).splitlines():
        print(f"unlabeled: {printable(line)}", file=sys.stderr)
