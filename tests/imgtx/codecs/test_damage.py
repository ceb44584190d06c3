"""Damaged and unreadable JPEG and TIFF files are refused: no wrong pixel is delivered."""

import zlib

import numpy as np
import pytest
import pyvips
from PIL import Image

from imgtx.codecs import decode
from imgtx.errors import ImageError
from tests.support import zoo
from tests.support.pictures import MAX_PIXELS, assert_equal


class TestJpegDamage:
    def test_damaged_data_are_refused(self):
        data = zoo.saved(zoo.photo(256, 256), "JPEG", quality=95)
        start = data.index(b"\xff\xda") + 14
        for at in range(start, len(data) - 60, 400):
            # A restart marker out of place.
            bad = data[:at] + b"\xff\xd5" + data[at + 2 :]
            with pytest.raises(ImageError, match="Corrupt JPEG data") as caught:
                decode(bad, max_pixels=MAX_PIXELS)
            assert caught.value.reason in ("corrupt", "truncated")

    def test_harmless_irregularities_are_read(self):
        data = zoo.saved(zoo.photo(), "JPEG")
        wanted = decode(data, max_pixels=MAX_PIXELS)
        odd = (
            data.replace(b"JFIF\0\1\1", b"JFIF\0\7\7"),
            data[:-2] + bytes(5) + data[-2:],
            data + bytes(999),
        )
        for case in odd:
            assert_equal(decode(case, max_pixels=MAX_PIXELS), wanted)


def tiled_tiff(compression: str, tile: int = 0) -> bytes:
    image = pyvips.Image.new_from_array(zoo.photo(200, 256))
    layout = {"tile": True, "tile_width": tile, "tile_height": tile} if tile else {}
    return image.copy(interpretation="srgb").tiffsave_buffer(compression=compression, **layout)


class TestTiffDamage:
    """libvips delivers zeros for strips and tiles that it cannot decode; imgtx refuses the file."""

    @pytest.mark.parametrize("tile", [0, 64])
    @pytest.mark.parametrize("compression", ["lzw", "deflate"])
    def test_damage_detected_by_the_codec_is_refused(self, compression, tile):
        data = tiled_tiff(compression, tile)
        assert decode(data, max_pixels=MAX_PIXELS).pixels.shape == (200, 256, 3)
        for at in range(100, len(data) * 3 // 4, len(data) // 12):
            bad = data[:at] + b"\xff" * 40 + data[at + 40 :]
            with pytest.raises(ImageError) as caught:
                decode(bad, max_pixels=MAX_PIXELS)
            assert caught.value.reason in ("corrupt", "truncated"), at
            assert len(str(caught.value)) < 600

    @pytest.mark.parametrize("codec", [0, 6, 32771, 32809, 34661, 34712, 34887, 50002])
    def test_a_codec_that_no_library_has_is_refused_by_name(self, codec):
        with pytest.raises(ImageError, match=f"tag 259 is {codec}\\); imgtx reads none, CCITT") as caught:
            decode(zoo.rgb_tiff({259: [codec]}), max_pixels=MAX_PIXELS)
        assert caught.value.reason == "unsupported"

    def test_every_supported_tiff_codec_is_read_correctly(self):
        grey = np.where(zoo.photo(channels=1) > 127, np.uint8(255), np.uint8(0))
        for name in ("tiff_ccitt", "group3", "group4", "packbits", "tiff_lzw", "tiff_adobe_deflate"):
            data = zoo.saved(Image.fromarray(grey).convert("1"), "TIFF", compression=name)
            np.testing.assert_array_equal(decode(data, max_pixels=MAX_PIXELS).pixels[:, :, 0], grey, name)
        half = zoo.photo()[:24]
        for codec, pack in (
            (8, zlib.compress),
            (32946, zlib.compress),
            (50001, lambda _: zoo.saved(half, "WEBP", lossless=True)),
        ):
            packed = pack(half.tobytes())
            data = zoo.tiff(
                {256: [64], 257: [24], 258: [8, 8, 8], 259: [codec], 262: [2], 277: [3], 278: [24]}, [packed]
            )
            np.testing.assert_array_equal(decode(data, max_pixels=MAX_PIXELS).pixels, half)
        image = pyvips.Image.new_from_array(zoo.photo()).copy(interpretation="srgb")
        for quality in (89, 90):  # YCbCr, RGB
            data = image.tiffsave_buffer(compression="jpeg", Q=quality)
            error = decode(data, max_pixels=MAX_PIXELS).pixels.astype(int) - zoo.photo()
            assert np.abs(error).mean() < 4

    def test_ycbcr_outside_jpeg_is_refused(self):
        ycbcr = Image.fromarray(zoo.photo()).convert("YCbCr")
        for compression in ("raw", "tiff_lzw", "packbits"):
            with pytest.raises(ImageError, match="convert it to RGB") as caught:
                decode(zoo.saved(ycbcr, "TIFF", compression=compression), max_pixels=MAX_PIXELS)
            assert caught.value.reason == "unsupported"

    def test_a_missing_strip_is_refused(self):
        with pytest.raises(ImageError, match="1 of 2 strips or tiles are empty") as caught:
            decode(zoo.rgb_tiff(part=b""), max_pixels=MAX_PIXELS)
        assert caught.value.reason == "corrupt"

    def test_errors_of_one_image_are_not_reported_for_the_next(self):
        damaged = tiled_tiff("lzw", 64)
        damaged = damaged[:1000] + b"\xff" * 99 + damaged[1099:]
        # Its strips are not LZW.
        wrong = zoo.rgb_tiff({259: [5]})
        messages = []
        for data in (wrong, damaged, wrong):
            with pytest.raises(ImageError) as caught:
                decode(data, max_pixels=MAX_PIXELS)
            # All of libvips' own text.
            messages.append(str(caught.value.__cause__))
        assert messages[0] == messages[2] != messages[1]
        assert decode(zoo.rgb_tiff(), max_pixels=MAX_PIXELS).notes == ()
