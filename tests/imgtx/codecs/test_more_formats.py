"""The formats that imgtx mostly reads: right pixels and metadata, and refusals where a decoder would be wrong."""

import io
import struct
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgtx.codecs import FORMATS, Picture, decode, encode, output_format, read_facts, read_header
from imgtx.codecs.colour import parsed
from imgtx.codecs.metadata import exif
from imgtx.errors import ImageError, UsageError
from tests.support import more_formats as made
from tests.support import zoo
from tests.support.pictures import MAX_PIXELS, picture

FILES = made.more_files()


def pixels_of(name: str) -> np.ndarray:
    return decode(FILES[f"more/{name}"][0], max_pixels=MAX_PIXELS).pixels


class TestPixels:
    @pytest.mark.parametrize(
        "name",
        ["rgb.ppm", "text.ppm", "rgba.pam", "rgb.tga", "rle.tga", "rgb.psd", "packed.psd", "big.psb", "channel.psd",
         "profile.psd", "rgb.jp2", "rgba.jp2", "rgb.j2k"],
    )  # fmt: skip
    def test_lossless_colour_is_exact(self, name):
        wanted = zoo.photo(channels=4)[..., :3] if "rgba" in name or "rle" in name else zoo.photo()
        np.testing.assert_array_equal(pixels_of(name), wanted)

    @pytest.mark.parametrize("name", ["rgb16.ppm", "rgb16.psd"])
    def test_16_bit_colour_is_exact(self, name):
        np.testing.assert_array_equal(pixels_of(name), zoo.photo(depth=16))

    @pytest.mark.parametrize("name", ["grey.pgm", "text.pgm", "grey.tga", "grey.psd"])
    def test_grey_is_exact(self, name):
        np.testing.assert_array_equal(pixels_of(name)[..., 0], zoo.photo(channels=1))

    def test_16_bit_grey_of_jpeg_2000_is_exact(self):
        np.testing.assert_array_equal(pixels_of("grey16.jp2")[..., 0], zoo.photo(channels=1, depth=16))

    @pytest.mark.parametrize("name", ["bits.pbm", "text.pbm"])
    def test_a_1_of_a_bitmap_is_black(self, name):
        wanted = np.where(zoo.photo(channels=1) > 127, 255, 0)
        np.testing.assert_array_equal(pixels_of(name)[..., 0], wanted)

    def test_levels_of_other_depths_reach_from_black_to_white(self):
        ramp = np.arange(1024).reshape(1, 1024)
        got = decode(made.netpbm("P5", ramp, 1023), max_pixels=MAX_PIXELS).pixels
        np.testing.assert_array_equal(got[0, :, 0], np.round(np.arange(1024) / 1023 * 65535))
        low = decode(made.netpbm("P5", ramp[:, :6], 5), max_pixels=MAX_PIXELS).pixels
        assert low[0, :, 0].tolist() == [0, 51, 102, 153, 204, 255]

    @pytest.mark.parametrize("bits", [10, 12])
    def test_deep_avif_keeps_its_bits(self, bits):
        got = decode(made.deep_avif(bits), max_pixels=MAX_PIXELS).pixels
        wanted = zoo.photo(depth=16)
        assert got.dtype == np.uint16
        assert np.abs(got.astype(int) - wanted).max() <= 65535 // (2**bits - 1) + 1
        white = Image.fromarray(np.full((16, 16, 3), 255, np.uint8))
        assert decode(made.avif(white), max_pixels=MAX_PIXELS).pixels.min() == 255

    def test_avif_turns_as_it_says(self):
        got = decode(FILES["more/turned.avif"][0], max_pixels=MAX_PIXELS)
        error = got.pixels.astype(int) - np.rot90(zoo.photo(), -1)
        assert np.abs(error).mean() < 2
        assert exif.orientation(got.exif) == 1

    def test_gif_equals_pillow_and_frees_what_no_frame_covers(self):
        with Image.open(io.BytesIO(FILES["more/clear.gif"][0])) as opened:
            wanted = np.asarray(opened.convert("RGBA"))
        got = decode(FILES["more/clear.gif"][0], max_pixels=MAX_PIXELS)
        np.testing.assert_array_equal(np.dstack([got.pixels, got.alpha]), wanted)
        small = decode(FILES["more/small-frame.gif"][0], max_pixels=MAX_PIXELS)
        covered = np.zeros((48, 64), np.uint8)
        covered[3:13, 5:25] = 255
        np.testing.assert_array_equal(small.alpha, covered)
        assert np.abs(small.pixels[3:13, 5:25].astype(int) - zoo.photo(10, 20)).mean() < 20

    @pytest.mark.parametrize("name", ["sizes.ico", "24bit.ico"])
    def test_the_mask_of_an_icon_is_its_alpha(self, name):
        got = decode(FILES[f"more/{name}"][0], max_pixels=MAX_PIXELS)
        size = len(got.pixels)
        np.testing.assert_array_equal(got.alpha, np.repeat([0, 255], size // 2)[:, None].repeat(size, 1))
        np.testing.assert_array_equal(got.pixels, zoo.photo(size, size))

    def test_cmyk_and_palette_of_a_psd(self):
        rgb = zoo.photo()
        # Without black ink the rest is plain.
        np.testing.assert_array_equal(pixels_of("cmyk.psd"), rgb)
        grey = zoo.photo(channels=1)
        np.testing.assert_array_equal(pixels_of("palette.psd"), np.dstack([grey] * 3))

    def test_the_white_behind_a_transparent_psd_is_taken_out(self):
        rgba = zoo.photo(channels=4).astype(int)
        alpha = rgba[..., 3:]
        over_white = ((rgba[..., :3] * alpha + 255 * (255 - alpha)) / 255).round().astype(np.uint8)
        planes = [*np.moveaxis(over_white, 2, 0), rgba[..., 3].astype(np.uint8)]
        got = decode(made.psd(planes, 3, layers=-1), max_pixels=MAX_PIXELS)
        np.testing.assert_array_equal(got.alpha, rgba[..., 3])
        assert np.abs(got.pixels - rgba[..., :3]).max() <= 255 / alpha.min()


class TestMetadata:
    def test_profile_exif_and_xmp(self):
        icc, block, xmp = zoo.rgb_profile(), zoo.exif_block(6)[6:], b"<x:xmpmeta/>"
        planes = [*np.moveaxis(zoo.photo(), 2, 0)]
        resolution = struct.pack(">IHHIHH", 300 << 16, 1, 1, 300 << 16, 1, 1)
        resources = {1005: resolution, 1039: icc, 1058: block, 1060: xmp}
        uuids = b"".join(
            struct.pack(">I4s", 8 + len(body), b"uuid") + body
            for body in (b"JpgTiffExif->JP2" + block, bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + xmp)
        )
        jp2 = made.with_jp2_colour(made.jp2(zoo.photo()), b"\2\0\0" + icc)
        at = jp2.index(b"jp2c") - 4
        files = {
            "psd": made.psd(planes, 3, resources=resources),
            "jpeg2000": jp2[:at] + uuids + jp2[at:],
            "avif": made.avif(
                zoo.photo(), icc_profile=icc, exif=b"Exif\0\0" + zoo.exif_block(1)[6:], xmp=xmp
            ),
        }
        for name, data in files.items():
            facts = read_facts(io.BytesIO(data))
            assert facts.header.format == name
            assert (facts.icc, facts.metadata.xmp) == (icc, xmp), name
            assert b"A. Nobody" in facts.exif, name
            assert facts.header.orientation == 1, name
        density = read_facts(io.BytesIO(files["psd"])).metadata.density
        assert density is not None
        assert (density.x, density.unit) == (300, "inch")

    @pytest.mark.parametrize(
        ("primaries", "transfer", "stated"),
        [
            (1, 13, ()),
            (1, 1, ()),
            (2, 2, ()),
            (9, 16, (9, 16, 0, 1)),
            (12, 13, (12, 13, 0, 1)),
            (9, 1, (9, 13, 0, 1)),
        ],
    )
    def test_the_colour_that_an_avif_states_is_carried_as_cicp(self, primaries, transfer, stated):
        data = made.with_nclx(made.deep_avif(10), primaries, transfer)
        got = decode(data, max_pixels=MAX_PIXELS)
        assert tuple(parsed(got.colour).get(b"cICP", b"")) == stated
        assert encode(got, "png", quality=90)[1] == ()
        if transfer == 16:
            with pytest.raises(ImageError, match=r"HDR picture .PQ., which jpeg cannot hold"):
                encode(got, "jpeg", quality=90)
        elif stated:
            assert "cicp->srgb" in encode(got, "jpeg", quality=90)[1]


def test_the_loss_of_a_file_is_known_where_its_header_tells_it():
    known = {"rgb.avif": 0, "rgb.jp2": 100, "lossy.jp2": 0, "rgb.j2k": 100, "rgb.ppm": 100, "still.gif": 100}
    assert {name: read_header(FILES[f"more/{name}"][0]).quality for name in known} == known


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (FILES["more/cmyk.jp2"][0], "colour space 12"),
            (FILES["more/lab.psd"][0], "8-bit Lab PSD"),
            (FILES["more/no-composite.psd"][0], "Maximize Compatibility"),
            (made.pam(zoo.photo(), 255, "XYZ"), "samples a pixel that are XYZ"),
            (made.psd([zoo.photo(channels=1, depth=16)] * 4, 4), "16-bit cmyk PSD"),
        ],
        ids=["cmyk-jp2", "lab-psd", "no-composite", "tuples", "cmyk16"],
    )
    def test_what_cannot_be_carried_is_named(self, data, message):
        with pytest.raises(ImageError, match=message) as caught:
            decode(data, max_pixels=MAX_PIXELS)
        assert caught.value.reason == "unsupported"

    def test_deep_colour_of_jpeg_2000_is_refused_instead_of_cut(self):
        data = bytearray(made.jp2(zoo.photo()))
        at = data.index(b"\xff\x4f\xff\x51") + 42
        for component in range(3):
            data[at + 3 * component] = 15
        with pytest.raises(ImageError, match="3 channels of 16 bits"):
            decode(bytes(data), max_pixels=MAX_PIXELS)

    def test_nothing_else_is_taken_for_a_tga(self):
        tga = FORMATS["tga"]
        for name, format in FORMATS.items():
            if name != "tga":
                files = [data for key, (data, _) in FILES.items() if format.recognise(data[:32])]
                assert not any(tga.recognise(data[:32]) for data in files), name
        noise = np.random.default_rng(1).integers(0, 256, (100_000, 32), np.uint8)
        assert sum(tga.recognise(start.tobytes()) for start in noise) < 20
        assert not tga.recognise(bytes(32))

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(sorted(FILES)), st.data())
    def test_damaged_bytes_raise_image_error_or_decode(self, name, data):
        bad = bytearray(FILES[name][0])
        for _ in range(data.draw(st.integers(0, 5))):
            at = data.draw(st.one_of(st.integers(0, min(150, len(bad) - 1)), st.integers(0, len(bad) - 1)))
            bad[at] = data.draw(st.integers(0, 255))
        cut = bad[: data.draw(st.integers(0, len(bad)))] if data.draw(st.booleans()) else bad
        try:
            got = decode(bytes(cut), max_pixels=1_000_000)
        except ImageError:
            return
        header = read_header(bytes(cut))
        assert got.pixels.shape == (header.height, header.width, header.channels)


class TestHeic:
    def test_without_its_extra_it_is_refused_with_the_command_that_adds_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pi_heif", None)
        with pytest.raises(ImageError, match=r'a HEIC picture; .* pip install "imgtx\[heif\]"') as caught:
            decode(made.heic("rgb"), max_pixels=MAX_PIXELS)
        assert caught.value.reason == "unsupported"

    def test_its_pixels_and_metadata(self):
        pytest.importorskip("pi_heif")
        wanted = zoo.photo(channels=4).astype(int)
        for name in ("rgb", "alpha", "turned", "profile", "two"):
            got = decode(made.heic(name), max_pixels=MAX_PIXELS)
            turned = np.rot90(wanted, -1) if name == "turned" else wanted
            assert np.abs(got.pixels - turned[..., :3]).mean() < 3, name
            assert (got.alpha is not None) == (name == "alpha")
            assert bool(got.icc) == (name == "profile")
        turned = decode(made.heic("turned"), max_pixels=MAX_PIXELS)
        assert exif.orientation(turned.exif) == 1
        assert b"A. Nobody" in turned.exif
        deep = decode(made.heic("10bit"), max_pixels=MAX_PIXELS).pixels
        assert np.abs(deep.astype(int) - zoo.photo(depth=16)).mean() < 3 * 257


class TestJxl:
    def test_without_its_extra_it_is_refused_with_the_command_that_adds_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pylibjxl", None)
        with pytest.raises(ImageError, match=r'a JPEG XL picture; .* pip install "imgtx\[jxl\]"') as caught:
            decode(b"\xff\x0a" + bytes(99), max_pixels=MAX_PIXELS)
        assert caught.value.reason == "unsupported"
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UsageError, match="--format jxl needs an extra"):
            output_format("png", "jxl")

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("with_alpha", [False, True])
    def test_what_is_written_without_loss_is_read(self, channels, with_alpha):
        pytest.importorskip("pylibjxl")
        pixels = zoo.photo(channels=channels).reshape(48, 64, channels)
        alpha = zoo.photo(channels=4)[..., 3] if with_alpha else None
        icc = zoo.rgb_profile() if channels == 3 else b""
        image = Picture(pixels, alpha, icc, exif.bare(zoo.exif_block()), "png", ())
        data, notes = encode(image, "jxl", quality=100)
        assert data == encode(image, "jxl", quality=100)[0]
        assert notes == (("grey->rgb",) if with_alpha and channels == 1 else ())
        got = decode(data, max_pixels=MAX_PIXELS)
        np.testing.assert_array_equal(
            got.pixels, pixels.repeat(3, 2) if with_alpha and channels == 1 else pixels
        )
        np.testing.assert_array_equal(got.alpha, alpha)
        assert got.icc == icc
        assert b"maker note" in got.exif

    def test_quality_decides_the_loss(self):
        pytest.importorskip("pylibjxl")
        noisy = picture(np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8))
        sizes, errors = [], []
        for quality in (20, 60, 90, 100):
            data, _ = encode(noisy, "jxl", quality=quality)
            sizes.append(len(data))
            error = decode(data, max_pixels=MAX_PIXELS).pixels.astype(int) - noisy.pixels
            errors.append(np.abs(error).mean())
        assert sizes == sorted(sizes)
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] == 0

    def test_more_bits_are_refused_instead_of_cut(self):
        pytest.importorskip("pylibjxl")
        # The depth of a bare codestream that is not the default is in its first bytes: this one has 16 bits.
        data = bytes.fromhex("ff0a89f19350b408001388 0200d512b5".replace(" ", "")) + bytes(99)
        with pytest.raises(ImageError, match="channels of 16 bits; its library decodes 8"):
            decode(data, max_pixels=MAX_PIXELS)


class TestWritingAvif:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("with_alpha", [False, True])
    def test_what_is_written_is_read(self, channels, with_alpha):
        pixels = zoo.photo(channels=channels).reshape(48, 64, channels)
        alpha = zoo.photo(channels=4)[..., 3] if with_alpha else None
        image = Picture(pixels, alpha, b"", exif.bare(zoo.exif_block()), "png", ())
        data, notes = encode(image, "avif", quality=100)
        assert notes == ()
        got = decode(data, max_pixels=MAX_PIXELS)
        assert got.pixels.shape[:2] == (48, 64)
        assert np.abs(got.pixels.astype(int) - pixels).mean() < 1.5
        assert (got.alpha is None) == (alpha is None)
        assert b"maker note" in got.exif

    def test_16_bits_become_8_with_a_note(self):
        assert encode(picture(zoo.photo(depth=16)), "avif", quality=90)[1] == ("16bit->8bit",)
