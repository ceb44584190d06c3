"""Metadata that is lost is reported, and the pixels are unaffected."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from imgtx.codecs import NOTES, Picture, carry_of, decode, encode, pack_carry, unpack_carry
from tests.support import zoo
from tests.support.pictures import MAX_PIXELS, assert_equal, picture

ADOBE_RGB = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)


class TestLosses:
    @pytest.mark.parametrize(
        ("chunks", "notes"),
        [
            ([(b"tEXt", b"Comment\0hello"), (b"gAMA", struct.pack(">I", 100_000))], "text"),
            ([(b"cHRM", ADOBE_RGB)], ""),
            ([(b"sBIT", b"\5\5\5"), (b"tIME", b"\7\xe4\1\1\0\0\0")], "sbit chunks"),
            ([(b"prVt", b"whose?")], "chunks"),
            ([(b"pHYs", bytes(9))], ""),
            ([(b"iTXt", b"Title\0\0\0\0\0hi"), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")], "text"),
            ([(b"iCCP", b"icc\0\0no stream")], "icc"),
        ],
    )
    def test_metadata_lost_from_a_png_is_named(self, chunks, notes):
        png = zoo.saved(zoo.photo())
        more = b"".join(zoo.png_chunk(kind, body) for kind, body in chunks)
        got = decode(png[:33] + more + png[33:], max_pixels=MAX_PIXELS)
        assert got.notes == tuple(f"{name}-dropped" for name in notes.split())
        assert set(got.notes) <= NOTES.keys()
        assert_equal(got, picture(zoo.photo()))

    def test_long_texts_and_profiles_do_not_prevent_decoding(self):
        png, noise = zoo.saved(zoo.photo()), np.random.default_rng(1).bytes(3 * 2**20)
        for kind, note in ((b"zTXt", "text-dropped"), (b"iCCP", "icc-dropped")):
            chunk = zoo.png_chunk(kind, b"name\0\0" + zlib.compress(noise, 1))
            got = decode(png[:33] + chunk + png[33:], max_pixels=MAX_PIXELS)
            assert got.notes == (note,)
            assert_equal(got, picture(zoo.photo()))

    @pytest.mark.parametrize(
        ("marker", "body", "notes"),
        [
            (0xEB, b"JP\0\1provenance", ("app-segments-dropped",)),
            (0xEC, b"Ducky\0\1", ("app-segments-dropped",)),
            (0xE1, b"http://ns.adobe.com/xmp/extension/\0<x/>", ("xmp-dropped",)),
            (0xFE, b"hello", ("text-dropped",)),
            (0xE0, b"JFXX\0\x10", ()),
        ],
    )
    def test_metadata_lost_from_a_jpeg_is_named(self, marker, body, notes):
        jpeg = zoo.saved(zoo.photo(), "JPEG", icc_profile=zoo.rgb_profile(), exif=zoo.exif_block())
        segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
        assert decode(jpeg[:20] + segment + jpeg[20:], max_pixels=MAX_PIXELS).notes == notes

    @pytest.mark.parametrize(
        ("tags", "notes"),
        [
            ({33550: [1, 1, 0], 34735: [1, 1, 0, 0]}, ("tags-dropped",)),
            ({269: b"name\0"}, ("tags-dropped",)),
            ({42113: b"0\0", 700: b"<x/>"}, ("tags-dropped",)),
            ({318: [3127, 3290], 319: [64, 33, 21, 71, 15, 6]}, ("chromaticities-dropped",)),
            ({318: [3127, 3290], 34675: zoo.rgb_profile()}, ()),
            ({282: [72], 283: [72], 296: [2], 254: [0]}, ()),
        ],
    )
    def test_metadata_lost_from_a_tiff_is_named(self, tags, notes):
        got = decode(zoo.rgb_tiff(tags), max_pixels=MAX_PIXELS)
        assert got.notes == notes
        assert_equal(got, picture(zoo.photo()))

    def test_an_unknown_chunk_of_a_webp_is_named(self):
        webp = zoo.saved(zoo.photo(), "WEBP", lossless=True, icc_profile=zoo.rgb_profile())
        more = webp[8:] + b"prVt" + struct.pack("<I", 4) + b"what"
        got = decode(b"RIFF" + struct.pack("<I", len(more)) + more, max_pixels=MAX_PIXELS)
        assert got.notes == ("chunks-dropped",)


def test_texts_of_a_made_picture_are_in_its_png_and_noted_elsewhere():
    made = Picture(
        zoo.photo(), None, b"", b"", "png", (), (("prompt", "ein roter Kreis ● 赤"), ("seed", "7"))
    )
    assert unpack_carry(pack_carry(carry_of(made))).texts == made.texts
    data, notes = encode(made, "png", quality=90)
    assert notes == ()
    assert Image.open(io.BytesIO(data)).text == dict(made.texts)
    assert "text-dropped" in decode(data, max_pixels=10**6).notes
    assert encode(made, "jpeg", quality=90)[1] == ("text-dropped",)
