"""A wrong checksum refuses a PNG where it is of the pixels; any other chunk is left out, as viewers do, with a note."""

import io
import struct
import zlib
from pathlib import Path

import pytest

from imgtx.codecs import decode
from imgtx.codecs.spool import spool_in
from imgtx.errors import ImageError
from tests.support.pictures import assert_equal, picture
from tests.support.zoo import exif_block, photo, png_chunk, rgb_profile, saved

# Signature and IHDR.
HEAD = 8 + 25
CHUNKS = {
    b"tEXt": b"Title\0night",
    b"gAMA": struct.pack(">I", 100_000),
    b"pHYs": bytes(9),
    b"prVt": b"anything",
    b"iCCP": b"icc\0\0" + zlib.compress(rgb_profile()),
    b"eXIf": exif_block(6)[6:],
}


def with_chunk(kind: bytes, body: bytes) -> bytes:
    png = saved(photo())
    return png[:HEAD] + png_chunk(kind, body) + png[HEAD:]


def damaged(png: bytes, kind: bytes) -> bytes:
    """Return the file with the last bit of the chunk's checksum flipped."""
    at = png.index(kind)
    (length,) = struct.unpack(">I", png[at - 4 : at])
    end = at + 4 + length + 4
    assert struct.unpack(">I", png[end - 4 : end])[0] == zlib.crc32(png[at : end - 4])
    return png[: end - 1] + bytes([png[end - 1] ^ 1]) + png[end:]


@pytest.mark.parametrize("kind", CHUNKS)
def test_an_ancillary_chunk_with_a_wrong_checksum_is_left_out(kind: bytes, tmp_path: Path):
    data = damaged(with_chunk(kind, CHUNKS[kind]), kind)
    got = decode(data, max_pixels=10**6)
    assert got.notes == ("damaged-chunk-dropped",)
    assert (got.icc, got.exif, got.colour) == (b"", b"", b"")
    assert_equal(got, picture(photo()))
    assert spool_in(io.BytesIO(data), tmp_path, max_pixels=10**6).notes == got.notes


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"tRNS"])
def test_a_wrong_checksum_of_the_pixels_is_damage(kind: bytes, tmp_path: Path):
    data = damaged(with_chunk(b"tRNS", bytes(6)), kind)
    for refused in (
        lambda: decode(data, max_pixels=10**6),
        lambda: decode(data, max_pixels=10**6, accept_damage=True),
        lambda: spool_in(io.BytesIO(data), tmp_path, max_pixels=10**6),
    ):
        with pytest.raises(ImageError, match=f"{kind.decode()}.* fails its checksum") as caught:
            refused()
        assert caught.value.reason == "corrupt"
