"""Which JPEGs two decoders are sure to agree on, told from the bytes before the first scan.

Layout: ITU-T T.81 annex B (markers, frame header), JFIF 1.02, Adobe technical note 5116 (APP14),
Exif 2.3 (APP1, a TIFF file inside), CIPA DC-007 (MPF). Any surprise leaves the file to PIL.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

Bytes = bytes | memoryview

_START_OF_SCAN = 0xDA
# Baseline, extended sequential and progressive, all with Huffman codes; not lossless, arithmetic.
_FRAMES = (0xC0, 0xC1, 0xC2)
# Huffman and quantization tables, restart interval, comment: whatever they say.
_PASSED = frozenset((0xC4, 0xDB, 0xDD, 0xFE))
_APPLICATION_DATA = range(0xE0, 0xF0)

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_TIFF_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION, _SHORT = 0x0112, 3


def plain_jpeg_size(data: Bytes) -> tuple[int, int] | None:
    """(width, height) of an upright 8-bit grey or YCbCr JPEG; None for all other bytes.

    Not plain, among others: CMYK, RGB-coded, 12-bit, lossless or arithmetic-coded, an orientation
    other than 1, several pictures in one file, a height that follows later, a malformed header.
    """
    frame = None
    for marker, start, end in _segments(data):
        if marker in _PASSED:
            continue
        if marker == _START_OF_SCAN:
            return None if frame is None else _frame_size(frame)
        payload = bytes(data[start:end])
        if marker in _FRAMES:
            if frame is not None:
                return None
            frame = payload
        elif marker not in _APPLICATION_DATA or _is_surprising(marker, payload):
            return None
    return None


def _segments(data: Bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start and end of the payload), as far as they follow each other without a gap."""
    place = 2 if data[:3] == b"\xff\xd8\xff" else len(data)
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        end = place + 2 + (data[place + 2] << 8 | data[place + 3])
        if end < place + 4 or end > len(data):
            return
        yield marker, place + 4, end
        place = end


def _frame_size(frame: bytes) -> tuple[int, int] | None:
    if len(frame) < 6:
        return None
    precision, height, width, components = struct.unpack_from(">BHHB", frame)
    identifiers = frame[6::3]
    if precision != 8 or not height or not width or len(frame) != 6 + 3 * components:
        return None
    if components not in (1, 3) or identifiers == b"RGB":  # libjpeg takes these names at their word
        return None
    return width, height


def _is_surprising(marker: int, payload: bytes) -> bool:
    """Whether application data turns the picture, changes its colours, or is malformed."""
    if marker == 0xE0:
        return payload[:4] == b"JFIF" and len(payload) < 14
    if marker == 0xE1 and payload[:6] == b"Exif\0\0":
        return not _is_upright(payload[6:])
    if marker == 0xE1:
        return payload.startswith(_XMP) and b"tiff:Orientation" in payload
    if marker == 0xE2:
        return payload[:4] == b"MPF\0"
    # transform: 0 is RGB or CMYK, 1 YCbCr, 2 YCCK
    return marker == 0xEE and payload[:5] == b"Adobe" and payload[11:12] != b"\1"


def _is_upright(tiff: bytes) -> bool:
    """Whether the first directory of a TIFF file is whole and names no orientation other than 1."""
    order = _TIFF_BYTE_ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return False
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return False
    (count,) = struct.unpack_from(order + "H", tiff, start)
    entries = tiff[start + 2 : start + 2 + 12 * count]
    if len(entries) < 12 * count:
        return False
    return all(
        (kind, number, value) == (_SHORT, 1, 1)
        for tag, kind, number, value, _ in struct.iter_unpack(order + "HHIHH", entries)
        if tag == _ORIENTATION
    )
