"""`unlabeled list [kind]`: the names that a config can use, with one line each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from unlabeled.cli.choices import Choice, choices, kinds
from unlabeled.registry import load_plugins


def main(argv: Sequence[str]) -> int:
    """Print one kind or all of them: a table on a terminal, aligned text in a pipe."""
    parser = argparse.ArgumentParser(
        prog="unlabeled list",
        description="Every name that a config can use, with one line each.",
        epilog="Kinds: " + ", ".join(kinds()),
    )
    parser.add_argument("kind", nargs="?", help="only this kind, for example: loss")
    kind = parser.parse_args(argv).kind
    load_plugins([])
    listed = {each: choices(each) for each in ([kind] if kind else kinds())}
    filled = {each: found for each, found in listed.items() if found}
    if sys.stdout.isatty():
        _print_tables(filled)
    else:
        _print_text(filled, indent="" if kind else "  ")
    return 0


def _print_text(listed: dict[str, list[Choice]], indent: str) -> None:
    """Two columns; with several kinds, each under its name."""
    width = max((len(each.name) for found in listed.values() for each in found), default=0)
    for kind, found in listed.items():
        if indent:
            print(kind)
        for each in found:
            print(f"{indent}{each.name:<{width}}  {each.summary}".rstrip())


def _print_tables(listed: dict[str, list[Choice]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("kind", "name", "summary", box=None, pad_edge=False, header_style="dim")
    for kind, found in listed.items():
        for number, each in enumerate(found):
            # Text, not str: a summary may hold square brackets, which are markup to rich.
            table.add_row(
                Text("" if number else kind, style="bold"),
                Text(each.name, style="cyan"),
                Text(each.summary),
                end_section=number == len(found) - 1,
            )
    Console().print(table)
