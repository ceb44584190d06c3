"""A PNG with a wrong checksum is refused, also in the chunks whose checksum libpng ignores."""

import io
import struct
import zlib
from pathlib import Path

import pytest

from imgtx.codecs import decode, read_header, vips
from imgtx.codecs.spool import spool_in
from imgtx.errors import ImageError
from tests.support.zoo import photo, png_chunk, saved

# Signature and IHDR.
HEAD = 8 + 25
CHUNKS = {
    b"tEXt": b"Title\0night",
    b"gAMA": struct.pack(">I", 45455),
    b"pHYs": bytes(9),
    b"prVt": b"anything",
}


def with_chunk(kind: bytes) -> bytes:
    png = saved(photo())
    return png[:HEAD] + png_chunk(kind, CHUNKS[kind]) + png[HEAD:]


def damaged(png: bytes, kind: bytes) -> bytes:
    """Return the file with the last bit of the chunk's checksum flipped."""
    at = png.index(kind)
    (length,) = struct.unpack(">I", png[at - 4 : at])
    end = at + 4 + length + 4
    assert struct.unpack(">I", png[end - 4 : end])[0] == zlib.crc32(png[at : end - 4])
    return png[: end - 1] + bytes([png[end - 1] ^ 1]) + png[end:]


@pytest.mark.parametrize("kind", [*CHUNKS, b"IEND"])
def test_a_wrong_checksum_is_damage_even_where_libpng_ignores_it(kind: bytes, tmp_path: Path):
    whole = saved(photo()) if kind == b"IEND" else with_chunk(kind)
    decode(whole, max_pixels=10**6)
    data = damaged(whole, kind)
    assert vips.samples(data, read_header(whole)).shape == photo().shape, "libpng forgives it"
    for refused in (
        lambda: decode(data, max_pixels=10**6),
        lambda: spool_in(io.BytesIO(data), tmp_path, max_pixels=10**6),
    ):
        with pytest.raises(ImageError, match=f"{kind.decode()}.* fails its checksum") as caught:
            refused()
        assert caught.value.reason == "corrupt"
