"""Pixels: what goes in comes out, what cannot says so, and no bytes raise anything but ImageError."""

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from imgtx import exif, header
from imgtx.errors import ImageError, UsageError
from imgtx.pixels import (
    NOTES,
    SUFFIXES,
    WRITABLE,
    Carry,
    Picture,
    decode,
    encode,
    output_format,
    pack_carry,
    read_header,
    suffix_for,
    unpack_carry,
)
from tests import zoo

MAX_PIXELS = 50_000_000
ADOBE_RGB = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)


def picture(
    pixels: np.ndarray, alpha: np.ndarray | None = None, icc: bytes = b"", block: bytes = b""
) -> Picture:
    return Picture(pixels, alpha, icc, block, "png", ())


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


def assert_equal(got: Picture, wanted: Picture) -> None:
    assert got.pixels.dtype == wanted.pixels.dtype
    np.testing.assert_array_equal(got.pixels, wanted.pixels)
    assert (got.alpha is None) == (wanted.alpha is None)
    if got.alpha is not None and wanted.alpha is not None:
        np.testing.assert_array_equal(got.alpha, wanted.alpha)


@pytest.fixture(scope="module")
def zoo_files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("zoo")
    return directory, zoo.build_zoo(directory)


class TestRoundTrips:
    @settings(deadline=None, max_examples=60)
    @given(pictures, st.sampled_from(["png", "tiff"]))
    def test_png_and_tiff_keep_every_form(self, image, format):
        data, notes = encode(image, format, quality=90)
        assert notes == ()
        assert_equal(decode(data, max_pixels=MAX_PIXELS), image)

    @settings(deadline=None, max_examples=20)
    @given(st.integers(1, 70), st.integers(1, 70), st.booleans(), st.integers(0, 2**32 - 1))
    def test_webp_at_100_keeps_8_bit_colour(self, height, width, with_alpha, seed):
        image = random_picture(height, width, 3, np.uint8, with_alpha, seed)
        got = decode(encode(image, "webp", quality=100)[0], max_pixels=MAX_PIXELS)
        if got.alpha is None and with_alpha:  # libwebp leaves out an alpha that is opaque everywhere
            got = replace(got, alpha=np.full((height, width), 255, np.uint8))
        assert_equal(got, image)

    @settings(deadline=None, max_examples=20)
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

    def test_every_refusal_is_a_sentence_that_ends_in_advice(self, zoo_files):
        directory, expected = zoo_files
        for key, wanted in expected.items():
            if not wanted.written:
                with pytest.raises(ImageError) as caught:
                    decode((directory / key).read_bytes(), max_pixels=MAX_PIXELS)
                assert len(str(caught.value)) > 30, key
                assert str(directory) not in str(caught.value)

    def test_a_bomb_is_refused_before_anything_is_decoded(self, zoo_files, monkeypatch):
        directory, _ = zoo_files
        for decoder in ("_samples_pillow", "_samples_vips"):
            monkeypatch.setattr(f"imgtx.pixels.{decoder}", lambda *_: pytest.fail("decoded"))
        for name in ("bomb.png", "bomb.webp"):
            with pytest.raises(ImageError) as caught:
                decode((directory / "refused" / name).read_bytes(), max_pixels=MAX_PIXELS)
            assert caught.value.reason == "too_large"


class TestValues:
    """Pixels against numbers known beforehand, or against Pillow where it is right."""

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

    def test_cmyk_comes_back_as_the_colours_it_was_made_from(self, zoo_files):
        for name, bound in (("cmyk.tif", 1), ("cmyk-adobe.jpg", 60), ("cmyk-plain.jpg", 60)):
            got = decode((zoo_files[0] / "forms" / name).read_bytes(), max_pixels=MAX_PIXELS)
            assert np.abs(got.pixels.astype(int) - zoo.photo()).max() <= bound, name

    def test_premultiplied_colours_are_divided(self, zoo_files):
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

    def test_alpha_is_laid_over_white(self):
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

    @pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
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

    def test_the_stale_thumbnail_is_cut_off(self):
        block = exif.bare(zoo.exif_block(1))
        assert b"\xff\xd8\xff" in block
        assert b"\xff\xd8\xff" not in exif.upright(block)

    @settings(deadline=None, max_examples=150)
    @given(st.binary(max_size=40), st.integers(0, 300), st.integers(0, 255))
    def test_no_exif_whatever_raises(self, noise, at, value):
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

    def test_what_a_format_cannot_hold_is_named(self):
        image = picture(zoo.photo(), icc=zoo.rgb_profile(), block=exif.bare(zoo.exif_block()))
        assert encode(image, "bmp", quality=90)[1] == ("icc-dropped", "exif-dropped")
        grey = picture(image.pixels[:, :, :1], icc=zoo.rgb_profile())
        assert encode(grey, "png", quality=90)[1] == ("icc-dropped",)
        long = picture(zoo.photo(), block=image.exif + bytes(70_000))
        assert encode(long, "jpeg", quality=90)[1] == ("exif-dropped",)
        assert encode(long, "png", quality=90)[1] == ()

    @pytest.mark.parametrize(
        ("chunks", "notes"),
        [
            ([(b"tEXt", b"Comment\0hello"), (b"gAMA", struct.pack(">I", 100_000))], "gamma text"),
            ([(b"cHRM", ADOBE_RGB)], "chromaticities"),
            ([(b"cHRM", ADOBE_RGB), (b"sRGB", b"\0")], ""),
            ([(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))], ""),
            ([(b"sBIT", b"\5\5\5"), (b"tIME", b"\7\xe4\1\1\0\0\0")], "chunks"),
            ([(b"prVt", b"whose?")], "chunks"),
            ([(b"pHYs", bytes(9))], ""),
            ([(b"iTXt", b"Title\0\0\0\0\0hi"), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")], "xmp text"),
            ([(b"iCCP", b"icc\0\0no stream")], "icc"),
        ],
    )
    def test_what_a_png_loses_is_named(self, chunks, notes):
        png = zoo.saved(zoo.photo())
        more = b"".join(zoo.png_chunk(kind, body) for kind, body in chunks)
        got = decode(png[:33] + more + png[33:], max_pixels=MAX_PIXELS)
        assert got.notes == tuple(f"{name}-dropped" for name in notes.split())
        assert set(got.notes) <= NOTES.keys()
        assert_equal(got, picture(zoo.photo()))

    def test_long_texts_and_profiles_cost_no_png(self):
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
            (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>", ("xmp-dropped",)),
            (0xE1, b"http://ns.adobe.com/xmp/extension/\0<x/>", ("xmp-dropped",)),
            (0xFE, b"hello", ("text-dropped",)),
            (0xE0, b"JFXX\0\x10", ()),
        ],
    )
    def test_what_a_jpeg_loses_is_named(self, marker, body, notes):
        jpeg = zoo.saved(zoo.photo(), "JPEG", icc_profile=zoo.rgb_profile(), exif=zoo.exif_block())
        segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
        assert decode(jpeg[:20] + segment + jpeg[20:], max_pixels=MAX_PIXELS).notes == notes

    @pytest.mark.parametrize(
        ("tags", "notes"),
        [
            ({33550: [1, 1, 0], 34735: [1, 1, 0, 0]}, ("tags-dropped",)),
            ({269: b"name\0"}, ("tags-dropped",)),
            ({42113: b"0\0", 700: b"<x/>"}, ("xmp-dropped", "tags-dropped")),
            ({318: [3127, 3290], 319: [64, 33, 21, 71, 15, 6]}, ("chromaticities-dropped",)),
            ({318: [3127, 3290], 34675: zoo.rgb_profile()}, ()),
            ({282: [72], 283: [72], 296: [2], 254: [0]}, ()),
        ],
    )
    def test_what_a_tiff_loses_is_named(self, tags, notes):
        got = decode(zoo.rgb_tiff(tags), max_pixels=MAX_PIXELS)
        assert got.notes == notes
        assert_equal(got, picture(zoo.photo()))

    def test_a_profile_in_a_bmp_is_named(self):
        bmp, icc = zoo.saved(zoo.photo(), "BMP"), zoo.rgb_profile()
        more = bytes(16) + b"DEBM" + bytes(48) + struct.pack("<4I", 4, 124 + len(bmp) - 54, len(icc), 0)
        head = struct.pack("<2sIII", b"BM", len(bmp) + 84 + len(icc), 0, 138) + struct.pack("<I", 124)
        got = decode(head + bmp[18:54] + more + bmp[54:] + icc, max_pixels=MAX_PIXELS)
        assert got.notes == ("icc-dropped",)
        assert_equal(got, picture(zoo.photo()))

    def test_a_chunk_of_a_webp_that_nobody_knows_is_named(self):
        webp = zoo.saved(zoo.photo(), "WEBP", lossless=True, icc_profile=zoo.rgb_profile())
        more = webp[8:] + b"prVt" + struct.pack("<I", 4) + b"what"
        got = decode(b"RIFF" + struct.pack("<I", len(more)) + more, max_pixels=MAX_PIXELS)
        assert got.notes == ("chunks-dropped",)


def tiled_tiff(compression: str, tile: int = 0) -> bytes:
    image = pyvips.Image.new_from_array(zoo.photo(200, 256))
    layout = {"tile": True, "tile_width": tile, "tile_height": tile} if tile else {}
    return image.copy(interpretation="srgb").tiffsave_buffer(compression=compression, **layout)


def raw_png(samples: np.ndarray, colour: int, depth: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A PNG of `samples` (height, width, bands) as they are, with `chunks` before its data."""
    height, width = samples.shape[:2]
    origins = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    passes = [samples[y::down, x::across] for y, x, down, across in origins] if interlaced else [samples]
    body = b""
    for rows in (rows for part in passes if part.size for rows in part):
        if depth == 16:
            line = rows.astype(">u2").tobytes()
        else:
            bits = np.unpackbits(rows.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
            line = np.packbits(bits).tobytes()
        body += b"\0" + line
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + zoo.png_chunk(b"IHDR", header)
        + b"".join(chunks)
        + zoo.png_chunk(b"IDAT", zlib.compress(body))
        + zoo.png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("interlaced", [False, True])
class TestPngForms:
    """Every form of PNG against the numbers that were written; sides that no pass of Adam7 divides."""

    def check(self, data: bytes, pixels: np.ndarray, alpha: np.ndarray | None) -> None:
        assert_equal(decode(data, max_pixels=MAX_PIXELS), picture(pixels, alpha))

    @pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
    def test_grey_with_and_without_a_key(self, interlaced, depth):
        dtype = np.uint16 if depth == 16 else np.uint8
        values = np.random.default_rng(depth).integers(0, 2**depth, (13, 11, 1)).astype(dtype)
        top = np.iinfo(dtype).max
        wanted = values * dtype(top // (2**depth - 1))
        self.check(raw_png(values, 0, depth, interlaced=interlaced), wanted, None)
        key = int(values[3, 4, 0])
        chunk = zoo.png_chunk(b"tRNS", struct.pack(">H", key))
        alpha = np.where(values[:, :, 0] == key, dtype(0), dtype(top))
        self.check(raw_png(values, 0, depth, chunk, interlaced=interlaced), wanted, alpha)

    @pytest.mark.parametrize("depth", [1, 2, 4, 8])
    @pytest.mark.parametrize("grey", [False, True])
    def test_palette_with_and_without_alpha(self, interlaced, depth, grey):
        rng = np.random.default_rng(depth)
        values = rng.integers(0, 2**depth, (13, 11, 1)).astype(np.uint8)
        colours = rng.integers(0, 256, (2**depth, 3)).astype(np.uint8)
        if grey:
            colours[:] = colours[:, :1]
        plte = zoo.png_chunk(b"PLTE", colours.tobytes())
        wanted = colours[values[:, :, 0]]
        self.check(raw_png(values, 3, depth, plte, interlaced=interlaced), wanted, None)
        cover = rng.integers(0, 256, 2**depth).astype(np.uint8)
        cover[-1] = 255  # left out of the chunk: the rest is opaque
        trns = zoo.png_chunk(b"tRNS", cover[:-1].tobytes())
        data = raw_png(values, 3, depth, plte, trns, interlaced=interlaced)
        self.check(data, wanted, cover[values[:, :, 0]])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_colour_key_and_alpha(self, interlaced, dtype):
        depth, top = np.dtype(dtype).itemsize * 8, np.iinfo(dtype).max
        values = np.random.default_rng(1).integers(0, top + 1, (13, 11, 4)).astype(dtype)
        rgb, alpha = values[..., :3], values[..., 3]
        self.check(raw_png(rgb, 2, depth, interlaced=interlaced), rgb, None)
        trns = zoo.png_chunk(b"tRNS", struct.pack(">HHH", *map(int, rgb[2, 5])))
        key = np.where((rgb == rgb[2, 5]).all(-1), dtype(0), dtype(top))
        self.check(raw_png(rgb, 2, depth, trns, interlaced=interlaced), rgb, key)
        self.check(raw_png(values, 6, depth, interlaced=interlaced), rgb, alpha)
        self.check(raw_png(values[..., 2:], 4, depth, interlaced=interlaced), values[..., 2:3], alpha)

    def test_a_key_that_decoders_pass_over_is_no_alpha(self, interlaced):
        rgb = zoo.photo(13, 11)
        early = raw_png(rgb, 2, 8, zoo.png_chunk(b"tRNS", b"\0"), interlaced=interlaced)
        late = raw_png(rgb, 2, 8, interlaced=interlaced)
        for data in (early, late[:-12] + zoo.png_chunk(b"tRNS", bytes(6)) + late[-12:]):
            got = decode(data, max_pixels=MAX_PIXELS)
            assert_equal(got, picture(rgb))
            assert got.notes == ("chunks-dropped",)


class TestJpegDamage:
    def test_damaged_data_are_refused(self):
        data = zoo.saved(zoo.photo(256, 256), "JPEG", quality=95)
        start = data.index(b"\xff\xda") + 14
        for at in range(start, len(data) - 60, 400):
            bad = data[:at] + b"\xff\xd5" + data[at + 2 :]  # a restart that nobody announced
            with pytest.raises(ImageError, match="Corrupt JPEG data") as caught:
                decode(bad, max_pixels=MAX_PIXELS)
            assert caught.value.reason in ("corrupt", "truncated")

    def test_oddities_that_leave_the_pixels_whole_are_read(self):
        data = zoo.saved(zoo.photo(), "JPEG")
        wanted = decode(data, max_pixels=MAX_PIXELS)
        odd = (
            data.replace(b"JFIF\0\1\1", b"JFIF\0\7\7"),
            data[:-2] + bytes(5) + data[-2:],
            data + bytes(999),
        )
        for case in odd:
            assert_equal(decode(case, max_pixels=MAX_PIXELS), wanted)


class TestTiffDamage:
    """libvips delivers zeros for strips and tiles that it cannot decode; imgtx delivers nothing then."""

    @pytest.mark.parametrize("tile", [0, 64])
    @pytest.mark.parametrize("compression", ["lzw", "deflate"])
    def test_damage_that_the_codec_notices_is_refused(self, compression, tile):
        data = tiled_tiff(compression, tile)
        assert decode(data, max_pixels=MAX_PIXELS).pixels.shape == (200, 256, 3)
        for at in range(100, len(data) * 3 // 4, len(data) // 12):
            bad = data[:at] + b"\xff" * 40 + data[at + 40 :]
            with pytest.raises(ImageError) as caught:
                decode(bad, max_pixels=MAX_PIXELS)
            assert caught.value.reason in ("corrupt", "truncated"), at
            assert len(str(caught.value)) < 600

    @pytest.mark.parametrize("codec", [0, 6, 32771, 32809, 34661, 34712, 34887, 34925, 50000, 50002])
    def test_a_codec_that_libvips_lacks_is_refused_by_name(self, codec):
        with pytest.raises(ImageError, match=f"tag 259 is {codec}\\); imgtx reads none, CCITT") as caught:
            decode(zoo.rgb_tiff({259: [codec]}), max_pixels=MAX_PIXELS)
        assert caught.value.reason == "unsupported"

    def test_every_codec_that_is_read_is_read_right(self):
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

    def test_one_pictures_errors_are_not_told_of_the_next(self):
        damaged = tiled_tiff("lzw", 64)
        damaged = damaged[:1000] + b"\xff" * 99 + damaged[1099:]
        wrong = zoo.rgb_tiff({259: [5]})  # whose strips are no LZW
        messages = []
        for data in (wrong, damaged, wrong):
            with pytest.raises(ImageError) as caught:
                decode(data, max_pixels=MAX_PIXELS)
            messages.append(str(caught.value))
        assert messages[0] == messages[2] != messages[1]
        assert decode(zoo.rgb_tiff(), max_pixels=MAX_PIXELS).notes == ()


class TestDoors:
    @pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # what Pillow says of each damaged tag
    @settings(deadline=None, max_examples=300)
    @given(st.data())
    def test_damage_raises_image_error_or_nothing(self, zoo_files, data):
        directory, expected = zoo_files
        keys = sorted(key for key in expected if key.startswith(("forms/", "oriented/", "profile/")))
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
    def test_a_bad_quality_is_the_callers_mistake(self, quality):
        with pytest.raises(UsageError, match="from 1 to 100"):
            encode(picture(zoo.photo()), "jpeg", quality=quality)

    def test_a_bad_format_is_the_callers_mistake(self):
        with pytest.raises(UsageError, match="png, jpeg, webp, tiff, bmp"):
            encode(picture(zoo.photo()), "gif", quality=90)
        with pytest.raises(UsageError, match="pick one"):
            output_format("png", "jpg2000")

    def test_formats_and_suffixes(self):
        assert [output_format(name, "same") for name in WRITABLE] == ["png", "jpeg", "webp", "tiff", "png"]
        assert output_format("jpeg", "webp") == "webp"
        assert all(SUFFIXES[suffix_for(name)] == name for name in WRITABLE)
        assert set(header.READ_FORMATS) == set(SUFFIXES.values())

    @given(st.binary(max_size=99), st.binary(max_size=99), st.sampled_from(WRITABLE))
    def test_carry_round_trip(self, icc, block, format):
        image = Picture(np.zeros((1, 1, 3), np.uint8), None, icc, block, format, ("oriented",))
        assert unpack_carry(pack_carry(image)) == Carry(icc, block, format)

    def test_a_cut_carry_is_noticed(self):
        with pytest.raises(ValueError, match="lengths ask for"):
            unpack_carry(pack_carry(picture(zoo.photo(), icc=b"12345"))[:-1])
