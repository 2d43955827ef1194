"""Text from elsewhere on a terminal: names, reasons and log lines may hold what it obeys."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line without control, formatting and undecodable characters: each becomes `?`."""
    return "".join(each if each.isprintable() else "?" for each in text.expandtabs())
