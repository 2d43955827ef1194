"""What follows from an image's size before a pixel is decoded: refusal, or a smaller decoding."""

from __future__ import annotations

from PIL import Image

from unlabeled.data.decode.broken import BrokenImage

# Both sides must exceed this for a JPEG to be decoded smaller. Halving takes 0.54 of the time of
# 2000 x 1500 pixels, but 0.69 of that of 500 x 375, of which no crop has a pixel to spare.
LARGE_SIDE = 1000

# An inverse DCT gives each block of 8 x 8 coefficients as 4 x 4, 2 x 2 or 1 x 1 pixels.
SHRINKS = (8, 4, 2)


def refuse_bomb(width: int, height: int) -> None:
    """BrokenImage for more pixels than PIL.Image.MAX_IMAGE_PIXELS (None: no limit).

    PIL itself only warns from that number on and raises from twice that; here both are refused.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise BrokenImage(f"decompression bomb: {width} x {height} pixels, limit {limit}")


def dct_shrink(width: int, height: int, at_least: int | None) -> int:
    """1, 2, 4 or 8: by how much a JPEG may shrink with its shorter side still >= at_least.

    A side of n pixels becomes ceil(n / shrink). 1 for at_least None and where a side is at most
    LARGE_SIDE.
    """
    shorter = min(width, height)
    if at_least is None or shorter <= LARGE_SIDE:
        return 1
    return next((shrink for shrink in SHRINKS if shrunk(shorter, shrink) >= at_least), 1)


def shrunk(side: int, shrink: int) -> int:
    """ceil(side / shrink), the pixels of a side decoded smaller."""
    return -(-side // shrink)
