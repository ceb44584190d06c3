"""Decoding and encoding in memory: pixels and metadata survive, losses are named, bad bytes raise only ImageError."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from imgtx.codecs import (
    FORMATS,
    NOTES,
    SUFFIXES,
    WRITABLE,
    Carry,
    Picture,
    carry_of,
    decode,
    encode,
    output_format,
    pack_carry,
    read_header,
    suffix_for,
    unpack_carry,
)
from imgtx.codecs.metadata import exif
from imgtx.errors import ImageError, UsageError
from tests.support import zoo
from tests.support.pictures import MAX_PIXELS, assert_equal, picture


def random_picture(
    height: int, width: int, channels: int, dtype: type, with_alpha: bool, seed: int
) -> Picture:
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max + 1
    alpha = rng.integers(0, top, (height, width), dtype) if with_alpha else None
    return picture(rng.integers(0, top, (height, width, channels), dtype), alpha)


pictures = st.builds(
    random_picture,
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([1, 3]),
    st.sampled_from([np.uint8, np.uint16]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)


@pytest.fixture(scope="module")
def zoo_files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("zoo")
    return directory, zoo.build_zoo(directory)


class TestRoundTrips:
    @settings(max_examples=60)
    @given(pictures, st.sampled_from(["png", "tiff"]))
    def test_png_and_tiff_keep_every_form(self, image, format):
        data, notes = encode(image, format, quality=90)
        assert notes == ()
        assert_equal(decode(data, max_pixels=MAX_PIXELS), image)

    @settings(max_examples=20)
    @given(st.integers(1, 70), st.integers(1, 70), st.booleans(), st.integers(0, 2**32 - 1))
    def test_webp_at_100_keeps_8_bit_colour(self, height, width, with_alpha, seed):
        image = random_picture(height, width, 3, np.uint8, with_alpha, seed)
        got = decode(encode(image, "webp", quality=100)[0], max_pixels=MAX_PIXELS)
        if got.alpha is None and with_alpha:
            # libwebp leaves out an alpha that is opaque everywhere.
            got = replace(got, alpha=np.full((height, width), 255, np.uint8))
        assert_equal(got, image)

    @settings(max_examples=20)
    @given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 3]), st.integers(0, 2**32 - 1))
    def test_bmp_keeps_8_bit(self, height, width, channels, seed):
        image = random_picture(height, width, channels, np.uint8, False, seed)
        assert_equal(decode(encode(image, "bmp", quality=90)[0], max_pixels=MAX_PIXELS), image)

    @pytest.mark.parametrize("format", ["png", "tiff"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_more_than_one_strip(self, format, channels):
        image = random_picture(700, 1300, channels, np.uint16, True, 5)
        assert_equal(decode(encode(image, format, quality=90)[0], max_pixels=MAX_PIXELS), image)

    @pytest.mark.parametrize("format", ["png", "tiff"])
    @pytest.mark.parametrize("with_alpha", [False, True])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_pillow_reads_what_we_write(self, format, with_alpha, channels):
        image = random_picture(300, 1201, channels, np.uint8, with_alpha, 3)
        with Image.open(io.BytesIO(encode(image, format, quality=90)[0])) as opened:
            bands = np.asarray(opened).reshape(300, 1201, -1)
        np.testing.assert_array_equal(bands[:, :, :channels], image.pixels)
        assert bands.shape[2] == channels + with_alpha

    @pytest.mark.parametrize("format", WRITABLE)
    def test_the_same_input_gives_the_same_bytes(self, format):
        image = random_picture(65, 33, 3, np.uint16, True, 1)
        assert encode(image, format, quality=80) == encode(image, format, quality=80)

    def test_jpeg_is_close_and_444_from_quality_90(self):
        image = picture(zoo.photo())
        for quality, chroma in ((90, (1, 1)), (89, (2, 2))):
            data, _ = encode(image, "jpeg", quality=quality)
            with Image.open(io.BytesIO(data)) as opened:
                assert opened.layer[0][1:3] == chroma
            error = decode(data, max_pixels=MAX_PIXELS).pixels.astype(int) - image.pixels
            assert np.abs(error).mean() < 4

    def test_a_view_encodes_like_its_copy(self):
        turned = np.rot90(zoo.photo())
        assert encode(picture(turned), "png", quality=90) == encode(picture(turned.copy()), "png", quality=90)


class TestZoo:
    def test_every_member_becomes_what_is_expected(self, zoo_files):
        directory, expected = zoo_files
        wrong = {}
        for key, wanted in expected.items():
            try:
                got = decode((directory / key).read_bytes(), max_pixels=MAX_PIXELS)
            except ImageError as error:
                outcome: object = error.reason
            else:
                outcome = zoo.Expectation(
                    "",
                    got.pixels.shape[:2],
                    got.pixels.shape[2],
                    got.pixels.itemsize * 8,
                    got.alpha is not None,
                    got.notes,
                )
            if outcome != (wanted.reason or wanted):
                wrong[key] = outcome
        assert not wrong
        assert len(expected) > 80

    def test_the_header_agrees_with_the_pixels(self, zoo_files):
        directory, expected = zoo_files
        for key, wanted in expected.items():
            if wanted.written:
                seen = read_header((directory / key).read_bytes())
                got = (seen.height, seen.width), seen.channels, seen.depth, seen.alpha
                assert got == (wanted.size, wanted.channels, wanted.depth, wanted.alpha), key

    def test_every_note_is_explained(self, zoo_files):
        _, expected = zoo_files
        assert {note for wanted in expected.values() for note in wanted.notes} <= NOTES.keys()

    def test_every_refusal_ends_with_advice(self, zoo_files):
        directory, expected = zoo_files
        for key, wanted in expected.items():
            if not wanted.written:
                with pytest.raises(ImageError) as caught:
                    decode((directory / key).read_bytes(), max_pixels=MAX_PIXELS)
                assert len(str(caught.value)) > 30, key
                assert str(directory) not in str(caught.value)

    def test_a_bomb_is_refused_before_anything_is_decoded(self, zoo_files, monkeypatch):
        directory, _ = zoo_files
        for name, format in FORMATS.items():
            never = replace(format, samples=lambda *_: pytest.fail("decoded"))
            monkeypatch.setitem(FORMATS, name, never)
        bombs = [name for name in zoo_files[1] if "bomb" in name]
        assert len(bombs) > 4
        for name in bombs:
            with pytest.raises(ImageError) as caught:
                decode((directory / name).read_bytes(), max_pixels=MAX_PIXELS)
            assert caught.value.reason == "too_large"


class TestValues:
    """Compare pixels with known numbers, or with Pillow where it is right."""

    def test_16_bit_rgb_is_really_16_bit(self, zoo_files):
        directory, _ = zoo_files
        for name in ("rgb16.png", "rgb16.tif"):
            got = decode((directory / "forms" / name).read_bytes(), max_pixels=MAX_PIXELS)
            np.testing.assert_array_equal(got.pixels, zoo.photo(depth=16))

    @pytest.mark.parametrize(
        "name", ["rgb.png", "palette.png", "lossless.webp", "progressive.jpg", "rgb.bmp", "lzw.tif"]
    )
    def test_8_bit_equals_pillow(self, zoo_files, name):
        data = (zoo_files[0] / "forms" / name).read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            reference = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(decode(data, max_pixels=MAX_PIXELS).pixels, reference)

    @pytest.mark.parametrize("name", ["2bit.png", "4bit.tif"])
    def test_low_bits_scale_to_the_full_range(self, zoo_files, name):
        got = decode((zoo_files[0] / "forms" / name).read_bytes(), max_pixels=MAX_PIXELS)
        np.testing.assert_array_equal(got.pixels[:, :, 0], [[0, 85, 170, 255]] * 3)

    def test_a_grey_key_becomes_alpha(self, zoo_files):
        got = decode((zoo_files[0] / "forms/grey-key.png").read_bytes(), max_pixels=MAX_PIXELS)
        np.testing.assert_array_equal(got.alpha, np.where(got.pixels[:, :, 0] == 12, 0, 255))

    def test_cmyk_decodes_to_the_original_colours(self, zoo_files):
        for name, bound in (("cmyk.tif", 1), ("cmyk-adobe.jpg", 60), ("cmyk-plain.jpg", 60)):
            got = decode((zoo_files[0] / "forms" / name).read_bytes(), max_pixels=MAX_PIXELS)
            assert np.abs(got.pixels.astype(int) - zoo.photo()).max() <= bound, name

    def test_premultiplied_colours_are_divided_by_alpha(self, zoo_files):
        got = decode((zoo_files[0] / "forms/premultiplied.tif").read_bytes(), max_pixels=MAX_PIXELS)
        wanted = zoo.photo(channels=4)
        np.testing.assert_array_equal(got.alpha, wanted[..., 3])
        assert np.abs(got.pixels.astype(int) - wanted[..., :3]).max() <= 3

    def test_16_to_8_bit_rounds_to_nearest(self):
        values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
        data, notes = encode(picture(values), "bmp", quality=90)
        assert notes == ("16bit->8bit",)
        got = decode(data, max_pixels=MAX_PIXELS).pixels
        np.testing.assert_array_equal(got, np.floor(values / 257 + 0.5))

    def test_alpha_is_flattened_onto_white(self):
        pixels = np.full((1, 3, 3), 100, np.uint8)
        data, notes = encode(picture(pixels, np.array([[0, 128, 255]], np.uint8)), "bmp", quality=90)
        assert notes == ("alpha->white",)
        assert decode(data, max_pixels=MAX_PIXELS).pixels[0, :, 0].tolist() == [255, 177, 100]

    def test_grey_becomes_three_channels_in_webp(self):
        image = picture(zoo.photo(channels=1)[..., None])
        data, notes = encode(image, "webp", quality=100)
        assert notes == ("grey->rgb",)
        np.testing.assert_array_equal(decode(data, max_pixels=MAX_PIXELS).pixels, image.pixels.repeat(3, 2))


class TestMetadata:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_orientation_equals_pillows(self, zoo_files, orientation, suffix):
        data = (zoo_files[0] / f"oriented/{orientation}.{suffix}").read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            reference = np.asarray(ImageOps.exif_transpose(opened))
        got = decode(data, max_pixels=MAX_PIXELS)
        np.testing.assert_array_equal(got.pixels, reference)
        assert exif.orientation(got.exif) == 1

    @pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "avif"])
    def test_exif_survives_upright_and_resized(self, format):
        source = decode(zoo.saved(zoo.photo(), "JPEG", exif=zoo.exif_block(6)), max_pixels=MAX_PIXELS)
        larger = Picture(np.zeros((128, 96, 3), np.uint8), None, b"", source.exif, "jpeg", ())
        data, notes = encode(larger, format, quality=90)
        assert notes == ()
        with Image.open(io.BytesIO(data)) as opened:
            carried = opened.getexif()
            assert carried[zoo.ARTIST] == "A. Nobody"
            assert carried.get(zoo.ORIENTATION, 1) == 1
            inner = carried.get_ifd(0x8769)
            assert (inner[0xA002], inner[0xA003]) == (96, 128)
            assert inner[0x927C] == b"maker note \x01\x02"
            assert not carried.get_ifd(1)
        assert decode(data, max_pixels=MAX_PIXELS).exif

    def test_avif_carries_exif_byte_for_byte(self):
        """Maker notes have offsets of their own into the block: it must not be laid out anew."""
        block = exif.resized(exif.upright(exif.bare(zoo.exif_block(6))), 48, 64)
        for behind in (b"", b"o", b"odd bytes that offsets of a maker note lead to"):
            image = picture(zoo.photo(), block=block + behind)
            data, notes = encode(image, "avif", quality=50)
            assert notes == ()
            carried = decode(data, max_pixels=MAX_PIXELS).exif
            assert carried in (image.exif, image.exif + b"\0")
        short = b"II*\0\x08\0\0\0" + bytes(6)
        data, _ = encode(picture(zoo.photo(), block=short), "avif", quality=50)
        assert short in data

    def test_the_stale_thumbnail_is_cut_off(self):
        block = exif.bare(zoo.exif_block(1))
        assert b"\xff\xd8\xff" in block
        assert b"\xff\xd8\xff" not in exif.upright(block)

    @settings(max_examples=150)
    @given(st.binary(max_size=40), st.integers(0, 300), st.integers(0, 255))
    def test_an_exif_block_never_raises(self, noise, at, value):
        block = bytearray(exif.bare(zoo.exif_block(3)))
        block[at % len(block)] = value
        for bad in (bytes(block), b"II*\0" + noise, bytes(block[: at % len(block)])):
            bare = exif.bare(bad)
            assert exif.orientation(bare) in range(1, 9)
            exif.resized(exif.upright(bare), 10, 20)

    @pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
    def test_the_profile_survives(self, format):
        icc = zoo.rgb_profile()
        data, notes = encode(picture(zoo.photo(), icc=icc), format, quality=95)
        assert notes == ()
        assert decode(data, max_pixels=MAX_PIXELS).icc == icc
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.info["icc_profile"] == icc

    def test_a_long_profile_survives_in_jpeg(self):
        icc = struct.pack(">I", 200_000) + zoo.rgb_profile()[4:]
        icc = icc.ljust(200_000, b"\x07")
        data, _ = encode(picture(zoo.photo(), icc=icc), "jpeg", quality=90)
        assert decode(data, max_pixels=MAX_PIXELS).icc == icc

    def test_metadata_and_pixels_that_a_format_cannot_store_are_reported(self):
        image = picture(zoo.photo(), icc=zoo.rgb_profile(), block=exif.bare(zoo.exif_block()))
        assert encode(image, "bmp", quality=90)[1] == ("icc-dropped", "exif-dropped")
        grey = picture(image.pixels[:, :, :1], icc=zoo.rgb_profile())
        assert encode(grey, "png", quality=90)[1] == ("icc-dropped",)
        long = picture(zoo.photo(), block=image.exif + bytes(70_000))
        assert encode(long, "jpeg", quality=90)[1] == ("exif-dropped",)
        assert encode(long, "png", quality=90)[1] == ()


class TestBadInput:
    # Pillow warns of each damaged tag.
    @pytest.mark.filterwarnings("ignore::UserWarning:PIL")
    @settings(max_examples=300)
    @given(st.data())
    def test_damaged_bytes_raise_image_error_or_decode(self, zoo_files, data):
        directory, expected = zoo_files
        keys = sorted(key for key in expected if key.startswith(("forms/", "oriented/", "profile/", "more/")))
        bad = bytearray((directory / data.draw(st.sampled_from(keys))).read_bytes())
        for _ in range(data.draw(st.integers(0, 6))):
            at = data.draw(st.one_of(st.integers(0, min(200, len(bad) - 1)), st.integers(0, len(bad) - 1)))
            bad[at] = data.draw(st.integers(0, 255))
        bad = bad[: data.draw(st.integers(0, len(bad)))] if data.draw(st.booleans()) else bad
        try:
            got = decode(bytes(bad), max_pixels=1_000_000)
        except ImageError:
            return
        assert got.pixels.ndim == 3
        assert encode(got, "png", quality=90)

    def test_sides_beyond_a_format_are_refused(self):
        for format, width in (("webp", 16_384), ("jpeg", 65_501)):
            with pytest.raises(ImageError) as caught:
                encode(picture(np.zeros((1, width, 3), np.uint8)), format, quality=90)
            assert caught.value.reason == "no_space_in_format"

    @pytest.mark.parametrize("quality", [0, 101, 90.0, True, "90"])
    def test_a_bad_quality_is_a_usage_error(self, quality):
        with pytest.raises(UsageError, match="from 1 to 100"):
            encode(picture(zoo.photo()), "jpeg", quality=quality)

    def test_a_bad_format_is_a_usage_error(self):
        with pytest.raises(
            UsageError, match="unknown format 'gif': expected one of png, jpeg, webp, tiff, bmp, avif, jxl"
        ):
            encode(picture(zoo.photo()), "gif", quality=90)
        with pytest.raises(UsageError, match="expected one of same, png"):
            output_format("png", "jpg2000")

    def test_formats_and_suffixes(self):
        assert [output_format(name, "same") for name in WRITABLE] == [
            "png",
            "jpeg",
            "webp",
            "tiff",
            "png",
            "avif",
            "jxl",
        ]
        assert output_format("gif", "same") == output_format("psd", "same") == "png"
        assert output_format("jpeg", "webp") == "webp"
        assert all(SUFFIXES[suffix_for(name)] == name for name in WRITABLE)
        assert set(FORMATS) == set(SUFFIXES.values())

    @given(st.binary(max_size=99), st.binary(max_size=99), st.sampled_from(WRITABLE))
    def test_metadata_round_trip(self, icc, block, format):
        image = Picture(
            np.zeros((1, 1, 3), np.uint8), None, icc, block, format, ("oriented",), colour=b"chunks"
        )
        carry = carry_of(image, b"hidden")
        assert carry == Carry(icc, block, format, 3, b"hidden", b"chunks")
        assert unpack_carry(pack_carry(carry)) == carry

    def test_truncated_metadata_is_detected(self):
        with pytest.raises(ValueError, match="lengths ask for"):
            unpack_carry(pack_carry(carry_of(picture(zoo.photo(), icc=b"12345")))[:-1])
