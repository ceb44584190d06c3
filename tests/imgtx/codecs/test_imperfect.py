"""Files whose pixels are complete are taken with a note; of truncated ones only what the user asks for."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgtx.codecs import NOTES, Picture, decode
from imgtx.codecs.spool import SpooledPicture, spool_in
from imgtx.errors import ImageError
from imgtx.imageops.geometry import Tile
from tests.support import zoo
from tests.support.pictures import MAX_PIXELS

NOISE = np.random.default_rng(3).integers(0, 256, (200, 96, 3), np.uint8)
IEND = 12


def jpeg(**options) -> bytes:
    return zoo.saved(NOISE, "JPEG", **{"quality": 90} | options)


def png(parts: int = 1, cut: int = 0) -> bytes:
    """Return `NOISE` as a PNG whose pixels are in so many chunks, of which the last `cut` are missing."""
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in NOISE))
    size = -(-len(packed) // parts)
    pieces = [packed[at : at + size] for at in range(0, len(packed), size)][: parts - cut]
    head = zoo.png_chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 200, 8, 2, 0, 0, 0))
    body = b"".join(zoo.png_chunk(b"IDAT", piece) for piece in pieces)
    return b"\x89PNG\r\n\x1a\n" + head + body + zoo.png_chunk(b"IEND", b"")


def both(data: bytes, directory, **options) -> Picture:
    """Decode in memory and on disk, and check that nothing differs."""
    outcomes: list[Picture | SpooledPicture | str] = []
    for read in (
        lambda: decode(data, max_pixels=MAX_PIXELS, **options),
        lambda: spool_in(io.BytesIO(data), directory, max_pixels=MAX_PIXELS, **options),
    ):
        try:
            outcomes.append(read())
        except ImageError as error:
            outcomes.append(error.reason)
    picture, spooled = outcomes
    if isinstance(picture, str):
        assert spooled == picture
        raise ImageError(picture, "in memory and on disk")
    assert isinstance(spooled, SpooledPicture)
    assert (spooled.notes, spooled.missing) == (picture.notes, picture.missing)
    np.testing.assert_array_equal(spooled.read(Tile(0, 0, spooled.height, spooled.width)), picture.pixels)
    assert {*picture.notes} <= {*NOTES}
    return picture


class TestWholePixels:
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}])
    @pytest.mark.parametrize("tail", [b"", b"\xff", bytes(4096)])
    def test_a_jpeg_without_its_end(self, options, tail, tmp_path):
        data = jpeg(**options)
        got = both(data[:-2] + tail, tmp_path)
        assert got.notes == ("end-missing",)
        np.testing.assert_array_equal(got.pixels, decode(data, max_pixels=MAX_PIXELS).pixels)

    @pytest.mark.parametrize(
        ("tail", "lost"),
        [
            (b"ftypmp42" * 999, "motion-video"),
            (jpeg(), "extra-pictures"),
            (b"\0", "trailing-bytes"),
            (b"\xff\xd9", "trailing-bytes"),
        ],
    )
    def test_bytes_behind_the_end_of_a_jpeg(self, tail, lost, tmp_path):
        data = jpeg(icc_profile=zoo.rgb_profile())
        got = both(data + tail, tmp_path)
        assert got.notes == (f"{lost}-dropped",)
        np.testing.assert_array_equal(got.pixels, decode(data, max_pixels=MAX_PIXELS).pixels)

    def test_a_whole_jpeg_with_an_end_marker_in_its_thumbnail_has_no_note(self, tmp_path):
        assert both(jpeg(exif=zoo.exif_block()), tmp_path).notes == ()

    @pytest.mark.parametrize("cut", [IEND, IEND - 3, IEND - 9, 1])
    @pytest.mark.parametrize("parts", [1, 5])
    def test_a_png_without_its_end(self, parts, cut, tmp_path):
        got = both(png(parts)[:-cut], tmp_path)
        assert got.notes == ("end-missing",)
        np.testing.assert_array_equal(got.pixels, NOISE)

    def test_a_png_whose_end_fails_its_checksum(self, tmp_path):
        got = both(png()[:-1] + b"\0", tmp_path)
        assert got.notes == ("end-missing",)
        np.testing.assert_array_equal(got.pixels, NOISE)

    def test_a_png_cut_in_a_text_behind_its_pixels(self, tmp_path):
        whole = png()
        data = whole[:-IEND] + zoo.png_chunk(b"zTXt", bytes(99)) + whole[-IEND:]
        assert both(data, tmp_path).notes == ("text-dropped",)
        got = both(data[:-60], tmp_path)
        assert "end-missing" in got.notes
        np.testing.assert_array_equal(got.pixels, NOISE)

    def test_bytes_behind_the_end_of_a_png(self, tmp_path):
        assert both(png() + b"more", tmp_path).notes == ("trailing-bytes-dropped",)


class TestTruncated:
    def test_a_file_that_lacks_pixels_is_refused(self, tmp_path):
        progressive = jpeg(progressive=True)
        last_scan = progressive.rindex(b"\xff\xda")
        huffman = progressive.rindex(b"\xff\xc4", 0, last_scan)
        files = {
            "within its last rows": jpeg()[:-40],
            "within a scan": progressive[:-40],
            "before a whole scan": progressive[:huffman],
            "within a chunk": png()[: -IEND - 9],
            "before a chunk": png(5, cut=1)[:-IEND],
        }
        for name, data in files.items():
            with pytest.raises(ImageError) as caught:
                both(data, tmp_path)
            assert caught.value.reason == "truncated", name

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    @pytest.mark.parametrize("format", ["jpeg", "png", "png in chunks", "tiff"])
    def test_what_is_there_can_be_accepted(self, format, share, tmp_path):
        data = {
            "jpeg": jpeg,
            "png": png,
            "png in chunks": lambda: png(9),
            "tiff": lambda: zoo.saved(NOISE, "TIFF", compression="raw"),
        }[format]()
        whole = decode(data, max_pixels=MAX_PIXELS).pixels
        got = both(data[: int(len(data) * share)], tmp_path, accept_damage=True)
        assert got.notes == ("damage-accepted",)
        assert got.missing == pytest.approx(1 - share, abs=0.13)
        rows = round((1 - got.missing) * 200)
        np.testing.assert_array_equal(got.pixels[:rows], whole[:rows])
        assert (got.pixels[-1] == (128 if format == "jpeg" else 0)).all()

    def test_coarse_to_fine_says_that_detail_is_missing(self, tmp_path):
        data = jpeg(progressive=True)
        got = both(data[: len(data) // 2], tmp_path, accept_damage=True)
        assert (got.notes, got.missing) == (("damage-accepted", "detail-missing"), 0.0)
        early = both(data[: data.index(b"\xff\xda") + 200], tmp_path, accept_damage=True)
        assert 0.3 < early.missing < 1

    def test_a_turned_picture_keeps_its_missing_share(self, tmp_path):
        data = jpeg(exif=zoo.exif_block(6))
        got = both(data[: len(data) // 2], tmp_path, accept_damage=True)
        assert got.pixels.shape == (96, 200, 3)
        assert got.notes == ("oriented", "damage-accepted") or set(got.notes) == {
            "oriented",
            "damage-accepted",
        }
        assert 0.3 < got.missing < 0.7

    def test_nothing_to_recover_is_its_own_reason(self, tmp_path):
        webp = zoo.saved(NOISE, "WEBP")
        for data in (jpeg()[:300], webp[: len(webp) // 2], b"\x89PNG\r\n\x1a\n", png(9)[:60]):
            with pytest.raises(ImageError) as caught:
                both(data, tmp_path, accept_damage=True)
            assert caught.value.reason == "unrecoverable"

    def test_wrong_bytes_and_bombs_stay_refused(self, tmp_path):
        data = bytearray(png(9)[:-4000])
        data[9000] ^= 1
        with pytest.raises(ImageError) as caught:
            both(bytes(data), tmp_path, accept_damage=True)
        assert caught.value.reason == "corrupt"
        with pytest.raises(ImageError) as caught:
            decode(jpeg()[:9000], max_pixels=100, accept_damage=True)
        assert caught.value.reason == "too_large"

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "BMP"]), st.floats(0, 1), st.booleans())
    def test_any_cut_is_refused_or_recovered(self, format, share, progressive):
        options = {"progressive": True} if progressive and format == "JPEG" else {}
        # The directory is at the end then.
        options |= {"compression": "tiff_lzw"} if progressive and format == "TIFF" else {}
        data = zoo.saved(Image.fromarray(NOISE[:64]), format, **options)
        data = data[: int(len(data) * share)]
        reason = ""
        try:
            got = decode(data, max_pixels=MAX_PIXELS, accept_damage=True)
        except ImageError as error:
            reason = error.reason
        else:
            assert got.pixels.shape == (64, 96, 3)
            assert 0 <= got.missing < 1
        assert reason in ("", "empty", "unrecoverable", "not_an_image")
