"""What a script measured, in README.md between `<!-- NAME -->` and `<!-- /NAME -->`."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def replace_table(name: str, text: str) -> None:
    """Put the text where the last one stood; SystemExit if README.md has no such marks."""
    before, start, rest = README.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not (start and end):
        raise SystemExit(f"README.md has no marks <!-- {name} --> and <!-- /{name} -->")
    README.write_text(f"{before}{start}{text}\n{end}{after}", encoding="utf-8")
