"""Which JPEGs are plain, told from their headers; and that those which are not are PIL's."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from unlabeled.data.decode import BrokenImage, decode_bytes
from unlabeled.data.decode.jpeg_header import plain_jpeg_size

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def picture(mode: str = "RGB", height: int = 40, width: int = 60) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 4, y * 6, (x + y) * 2], axis=2).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def inserted(data: bytes, marker: int, payload: bytes) -> bytes:
    """The file with one more segment right after its start."""
    segment = struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
    return data[:2] + segment + data[2:]


def tiff(order: str, entries: list[bytes], start: int = 8) -> bytes:
    """An Exif payload: one directory of these 12-byte entries."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
    return b"Exif\0\0" + head + bytes(start - 8) + directory


def orientation(order: str, value: int) -> bytes:
    return struct.pack(order + "HHIHH", 0x0112, 3, 1, value, 0)


def by_pil(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def assert_left_to_pil(data: bytes) -> None:
    assert plain_jpeg_size(data) is None
    assert np.array_equal(decode_bytes(data), by_pil(data))


def test_plain_files_and_their_sizes() -> None:
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"quality": 100}):
        assert plain_jpeg_size(jpeg(**options)) == (60, 40)
    assert plain_jpeg_size(jpeg("L")) == (60, 40)
    assert plain_jpeg_size(memoryview(jpeg())) == (60, 40)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_only_the_upright_orientation_is_plain(order: str, value: int) -> None:
    other = struct.pack(order + "HHIHH", 0x0100, 3, 1, 60, 0)
    payload = tiff(order, [other, orientation(order, value)], start=20)
    data = inserted(jpeg(), 0xE1, payload)
    assert plain_jpeg_size(data) == ((60, 40) if value == 1 else None)
    turned = decode_bytes(data)
    assert np.array_equal(turned, by_pil(data))
    assert turned.shape == ((40, 60, 3) if value < 5 else (60, 40, 3))
    upright = decode_bytes(jpeg())
    assert np.array_equal(turned, upright) == (value == 1)


def test_all_turns_of_a_jpeg() -> None:
    upright = decode_bytes(jpeg())
    turns = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, -1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright),
    }
    for value, turned in turns.items():
        data = inserted(jpeg(), 0xE1, tiff(">", [orientation(">", value)]))
        assert np.array_equal(decode_bytes(data), turned), value


def test_an_orientation_in_xmp_is_pils_to_read() -> None:
    data = inserted(jpeg(), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    assert_left_to_pil(data)
    assert decode_bytes(data).shape == (60, 40, 3)
    harmless = XMP.replace(b"tiff:Orientation", b"tiff:Artist_____")
    data = inserted(jpeg(), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + harmless)
    assert plain_jpeg_size(data) == (60, 40)


@pytest.mark.parametrize(
    "payload",
    [
        b"Exif\0\0",
        b"Exif\0\0MM\0*",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",  # a directory beyond the end
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",  # of more entries than there are bytes
        b"Exif\0\0Exif\0\0" + tiff(">", [orientation(">", 6)])[6:],
        tiff("<", [orientation("<", 6)])[:-10],
        tiff("<", [orientation("<", 1), orientation("<", 6)]),
        tiff("<", [struct.pack("<HHII", 0x0112, 4, 1, 1)]),  # a long
        tiff("<", [struct.pack("<HHIHH", 0x0112, 3, 2, 1, 6)]),  # two of them
    ],
    ids=range(9),
)
def test_odd_exif_is_pils_to_read(payload: bytes) -> None:
    assert plain_jpeg_size(inserted(jpeg(), 0xE1, payload)) is None
    assert decode_bytes(inserted(jpeg(), 0xE1, payload)).shape[2] == 3


def test_four_components_are_pils() -> None:
    cmyk = jpeg("CMYK")
    assert_left_to_pil(cmyk)
    transform = cmyk.index(b"Adobe") + 11
    ycck = cmyk[:transform] + b"\2" + cmyk[transform + 1 :]
    assert_left_to_pil(ycck)
    start = cmyk.index(b"\xff\xee")
    unnamed = cmyk[:start] + cmyk[start + 16 :]
    assert b"Adobe" not in unnamed
    assert_left_to_pil(unnamed)


def test_colours_stored_as_rgb_are_pils() -> None:
    adobe = jpeg(keep_rgb=True)
    assert b"Adobe" in adobe
    assert_left_to_pil(adobe)
    frame = adobe.index(b"\xff\xc0")
    named = bytearray(adobe)
    for place, name in zip((10, 13, 16), b"RGB", strict=True):  # by the names of the components
        named[frame + place] = name
    scan = named.index(b"\xff\xda")
    for place, name in zip((5, 7, 9), b"RGB", strict=True):
        named[scan + place] = name
    start, length = named.index(b"\xff\xee"), 16
    del named[start : start + length]
    assert b"Adobe" not in named
    assert_left_to_pil(bytes(named))
    assert np.array_equal(by_pil(bytes(named)), by_pil(adobe))


def test_adobes_word_for_ycbcr_is_plain() -> None:
    data = inserted(jpeg(), 0xEE, b"Adobe\0d\0\0\0\0\1")
    assert plain_jpeg_size(data) == (60, 40)
    assert np.array_equal(decode_bytes(data), by_pil(data))
    assert plain_jpeg_size(inserted(jpeg(), 0xEE, b"Adobe\0d")) is None


def test_several_pictures_in_one_file_are_pils() -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "MPO", save_all=True, append_images=[picture().rotate(90)])
    assert_left_to_pil(buffer.getvalue())
    assert decode_bytes(buffer.getvalue()).shape == (40, 60, 3)


@pytest.mark.parametrize("precision", [12, 16, 2])
def test_twelve_bits_are_broken(precision: int) -> None:
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + 4] = precision
    assert plain_jpeg_size(data) is None
    with pytest.raises(BrokenImage):
        decode_bytes(data)


@pytest.mark.parametrize("frame", [0xC3, 0xC5, 0xC9, 0xCA])
def test_other_processes_are_pils(frame: int) -> None:
    """Lossless, hierarchical and arithmetic-coded files, which PIL decodes or refuses."""
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + 1] = frame
    assert plain_jpeg_size(data) is None
    try:
        pixels = decode_bytes(data)
    except BrokenImage:
        return
    assert pixels.shape == (40, 60, 3)


def test_malformed_headers_are_not_plain() -> None:
    data = jpeg()
    frame = data.index(b"\xff\xc0")
    length = 2 + struct.unpack_from(">H", data, frame + 2)[0]
    segment = data[frame : frame + length]
    malformed = [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\0",
        b"\xff\xd8\xff\xe0\0\1" + data[6:],  # a segment shorter than its own length
        data[:frame] + segment + data[frame:],  # two frames
        data[:frame] + data[frame + length :],  # none
        data[:2] + b"\xff" + data[2:],  # a fill byte: allowed and rare
        data[:2] + b"\xff\xd0\0\2" + data[2:],  # a restart before the first scan
        data.replace(segment, segment[:5] + b"\0\0" + segment[7:]),  # height to be told later
        data.replace(segment, segment[:7] + b"\0\0" + segment[9:]),
        inserted(data, 0xE0, b"JFIF\0"),
        data.replace(b"\xff\xda\0\x0c", b"\xff\xda\0\1"),  # a scan without room for its length
    ]
    for number, each in enumerate(malformed):
        assert plain_jpeg_size(each) is None, number
    for cut in range(data.index(b"\xff\xda") + 4):
        assert plain_jpeg_size(data[:cut]) is None


def test_any_bytes_have_a_size_or_none() -> None:
    generator = np.random.default_rng(0)
    exif = inserted(jpeg(), 0xE1, tiff("<", [orientation("<", 1)]))
    head = exif[: exif.index(b"\xff\xda") + 14]
    for _ in range(3000):
        damaged = np.frombuffer(head, dtype=np.uint8).copy()
        damaged[generator.integers(3, len(head), size=3)] = generator.integers(0, 256, size=3)
        size = plain_jpeg_size(damaged.tobytes())
        assert size is None or (0 < size[0] < 65536 and 0 < size[1] < 65536)
