"""Pictures side by side with their captions, as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from PIL import Image

from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.base import Source
from unlabeled.printable import printable

_STYLE = """
body { font: 13px sans-serif; margin: 16px; color: #222; }
h2 { font-size: 14px; margin: 20px 0 4px; overflow-wrap: anywhere; }
.row { display: flex; flex-wrap: wrap; gap: 6px; }
figure { margin: 0; padding: 3px; }
figure.first { outline: 2px solid #06c; }
figcaption { font-size: 11px; overflow-wrap: anywhere; }
.lost { background: #eee; display: flex; align-items: center; justify-content: center; }
"""


@dataclass(frozen=True)
class Picture:
    """An image of a data set by its place, and what to say of it beside its name."""

    image: int
    caption: str


@dataclass(frozen=True)
class Group:
    """Pictures under a heading; `marked`: the first of them is outlined."""

    heading: str
    pictures: list[Picture]
    marked: bool = False


def contact_sheet(title: str, groups: Iterable[Group], source: Source, *, side: int) -> str:
    """The page; pictures are shrunk so that none of their sides exceeds `side` pixels.

    Whatever headings and file names hold is shown as text. An image that cannot be decoded any more
    is replaced by a grey square.
    """
    body = "\n".join(line for group in groups for line in _group(group, source, side))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}'
        f"</title>\n<style>{_STYLE}figure {{ width: {side}px; }}</style></head>\n"
        f"<body><h1>{_text(title)}</h1>\n{body}\n</body></html>\n"
    )


def _group(group: Group, source: Source, side: int) -> Iterator[str]:
    yield f'<h2>{_text(group.heading)}</h2>\n<div class="row">'
    for place, picture in enumerate(group.pictures):
        kind = ' class="first"' if group.marked and place == 0 else ""
        caption = f"{_text(source.name(picture.image))}<br>{_text(picture.caption)}"
        yield (
            f"<figure{kind}>{_shown(source, picture.image, side)}"
            f"<figcaption>{caption}</figcaption></figure>"
        )
    yield "</div>"


def _shown(source: Source, image: int, side: int) -> str:
    try:
        small = Image.fromarray(source.image(image))
    except BrokenImage:
        return f'<div class="lost" style="height: {side}px">cannot be decoded</div>'
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'


def _text(text: str) -> str:
    """Text of a page: characters that cannot be shown become `?`."""
    return html.escape(printable(text))
