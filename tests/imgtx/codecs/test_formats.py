"""Tests of the table of formats: a new format is one `Format` and one line, in memory and on disk."""

import io
import struct
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
import pytest

from imgtx.codecs import (
    FORMATS,
    SUFFIXES,
    WRITABLE,
    Carry,
    Facts,
    Format,
    Header,
    Picture,
    Writer,
    decode,
    encode,
)
from imgtx.codecs.rows import Raster, in_memory, on_disk
from imgtx.codecs.spool import SpoolWriter, spool_in
from imgtx.errors import ImageError, UsageError
from imgtx.imageops.geometry import Tile
from tests.support import zoo
from tests.support.pictures import MAX_PIXELS


def read_plain(file: BinaryIO) -> Facts:
    height, width = struct.unpack("<4xII", file.read(12))
    header = Header("plain", height, width, 3, 8, alpha=False, frames=1, orientation=1, form="rgb")
    return Facts(header, end=12 + 3 * height * width)


def plain_samples(data: bytes, header: Header) -> np.ndarray:
    return np.frombuffer(data, np.uint8, offset=12).reshape(header.height, header.width, 3)


def write_plain(file: BinaryIO, rows: Iterable[np.ndarray], raster: Raster) -> tuple[str, ...]:
    file.write(b"PLAI" + struct.pack("<II", raster.height, raster.width))
    for strip in rows:
        file.write(np.ascontiguousarray(strip).data)
    return ()


PLAIN = Format(
    name="plain",
    title="Plain",
    suffixes=(".plain",),
    reads="8 bits, RGB",
    recognise=lambda start: start.startswith(b"PLAI"),
    read_facts=read_plain,
    samples=plain_samples,
    strips=lambda path, header: iter([(0, plain_samples(path.read_bytes(), header))]),
    writer=Writer(encode=in_memory(write_plain), write=on_disk(write_plain), side_limit=100),
)


@pytest.fixture
def plain(monkeypatch) -> None:
    monkeypatch.setitem(FORMATS, "plain", PLAIN)


@pytest.mark.usefixtures("plain")
class TestNewFormat:
    def test_unsupported_pixels_and_metadata_are_converted_and_reported(self):
        deep = zoo.photo(channels=1, depth=16)[..., None]
        data, notes = encode(
            Picture(deep, deep[..., 0], zoo.rgb_profile(), b"", "png", ()), "plain", quality=9
        )
        assert notes == ("icc-dropped", "16bit->8bit", "alpha->white", "grey->rgb")
        got = decode(data, max_pixels=MAX_PIXELS)
        assert (got.format, got.pixels.shape, got.pixels.dtype) == ("plain", (48, 64, 3), np.uint8)

    def test_a_format_encodes_alike_on_disk_and_in_memory(self, tmp_path):
        image = Picture(zoo.photo(), None, b"", b"", "png", ())
        writer = SpoolWriter(tmp_path, 48, 64, 3, np.uint8, False)
        writer.put(0, 0, image.pixels)
        path = writer.finish("plain", 90, Carry(b"", b"", "png", 3))
        data = path.read_bytes()
        assert data == encode(image, "plain", quality=90)[0]
        np.testing.assert_array_equal(decode(data, max_pixels=MAX_PIXELS).pixels, image.pixels)
        spooled = spool_in(io.BytesIO(data), tmp_path, max_pixels=MAX_PIXELS)
        np.testing.assert_array_equal(spooled.read(Tile(0, 0, 48, 64)), image.pixels)

    def test_the_size_limit_is_enforced_and_truncation_is_detected(self):
        with pytest.raises(ImageError, match="sides up to 100"):
            encode(Picture(zoo.photo(101, 9), None, b"", b"", "png", ()), "plain", quality=90)
        data, _ = encode(Picture(zoo.photo(), None, b"", b"", "png", ()), "plain", quality=90)
        with pytest.raises(ImageError) as caught:
            decode(data[:-1], max_pixels=MAX_PIXELS)
        assert caught.value.reason == "truncated"


def test_a_format_without_an_encoder_cannot_be_written(monkeypatch):
    monkeypatch.setitem(FORMATS, "plain", Format(**{**vars(PLAIN), "writer": None}))
    with pytest.raises(UsageError, match="unknown format 'plain'"):
        encode(Picture(zoo.photo(), None, b"", b"", "png", ()), "plain", quality=90)


def test_the_table_of_formats_is_consistent():
    assert [*FORMATS] == [format.name for format in FORMATS.values()]
    assert len(SUFFIXES) == sum(len(format.suffixes) for format in FORMATS.values())
    for format in FORMATS.values():
        assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in format.suffixes)
        assert format.same in ("", *WRITABLE)
        assert format.writer or format.same
