"""The size on paper stays: dots per inch are carried exactly, and grow with the pixels."""

import io
import struct
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from imgtx.codecs import NOTES, WRITABLE, Picture, decode, encode, read_facts
from imgtx.codecs.metadata import exif
from imgtx.codecs.metadata.density import Density, as_rational, density_of
from tests.support import zoo
from tests.support.both_ways import both_ways
from tests.support.pictures import MAX_PIXELS

INCH = Density(Fraction(300), Fraction(300), "inch")
PHOTO = Image.fromarray(zoo.photo())


def camera_exif(orientation: int = 1, x: int = 72, y: int = 72) -> bytes:
    """Return an EXIF block with resolution, sensor resolution and the place of the subject, as phones write it."""
    block = Image.Exif()
    block[zoo.ORIENTATION] = orientation
    block[0x011A], block[0x011B], block[0x0128] = IFDRational(x, 1), IFDRational(y, 1), 2
    block.get_ifd(0x8769).update(
        {0xA20E: IFDRational(5000, 3), 0xA20F: IFDRational(4000, 3), 0xA210: 2, 0x9214: (20, 10, 8, 6)}
    )
    return block.tobytes()


def stated(block: bytes) -> dict[int, object]:
    """Return the tags of an EXIF block that speak of sizes."""
    read = Image.Exif()
    read.load(exif.PREFIX + block)
    inner = read.get_ifd(0x8769)
    return {tag: read.get(tag, inner.get(tag)) for tag in (0x011A, 0x011B, 0x0128, 0xA20E, 0xA20F, 0x9214)}


def enlarged(source: Picture, scale: int) -> Picture:
    """Return a picture of that size with what the source carries."""
    height, width, channels = source.pixels.shape
    return replace(source, pixels=np.zeros((height * scale, width * scale, channels), np.uint8), notes=())


SOURCES = {
    "jfif": (zoo.saved(PHOTO, "JPEG", dpi=(300, 300)), INCH),
    "phys": (zoo.saved(PHOTO, "PNG", dpi=(300, 300)), Density(Fraction(11811), Fraction(11811), "metre")),
    "tiff": (zoo.saved(PHOTO, "TIFF", dpi=(300, 300)), INCH),
    "tiff in cm": (
        zoo.saved(PHOTO, "TIFF", resolution_unit="cm", x_resolution=118.0, y_resolution=59.0),
        Density(Fraction(118), Fraction(59), "cm"),
    ),
    "bmp": (zoo.saved(PHOTO, "BMP", dpi=(300, 300)), Density(Fraction(11811), Fraction(11811), "metre")),
    "exif": (zoo.saved(PHOTO, "WEBP", exif=camera_exif()), Density(Fraction(72), Fraction(72), "inch")),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("format", WRITABLE)
def test_resolution_of_every_format_comes_into_every_other(source, scale, format, tmp_path):
    data, wanted = SOURCES[source]
    picture = decode(data, max_pixels=MAX_PIXELS)
    assert picture.metadata.density == wanted
    one, other, notes = both_ways(enlarged(picture, scale), format, tmp_path)
    assert ("resolution-scaled" in notes) == (scale > 1)
    assert "resolution-dropped" not in notes
    for made in (one, other):
        density = decode(made, max_pixels=MAX_PIXELS).metadata.density
        assert density
        inch, expected = density.per("inch"), wanted.per("inch")
        # Whole pixels per inch in JFIF, per metre in PNG and BMP.
        assert abs(inch.x - expected.x * scale) <= Fraction(1, 2)
        assert abs(inch.y - expected.y * scale) <= Fraction(1, 2)
        if scale == 1 and wanted.unit == density.unit:
            assert density == wanted


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff"])
def test_pillow_reads_the_resolution(format):
    picture = decode(SOURCES["jfif"][0], max_pixels=MAX_PIXELS)
    data, _ = encode(enlarged(picture, 4), format, quality=90)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.info["dpi"] == pytest.approx((1200, 1200), abs=0.02)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_exif_agrees_with_the_file(format, tmp_path):
    source = decode(zoo.saved(PHOTO, "JPEG", exif=camera_exif(), dpi=(72, 72)), max_pixels=MAX_PIXELS)
    for made in both_ways(enlarged(source, 2), format, tmp_path)[:2]:
        got = decode(made, max_pixels=MAX_PIXELS)
        assert stated(got.exif) == {
            0x011A: 144,
            0x011B: 144,
            0x0128: 2,
            # The sensor has not grown.
            0xA20E: Fraction(10_000, 3),
            0xA20F: Fraction(8000, 3),
            0x9214: (40, 20, 16, 12),
        }
        assert got.metadata.density
        assert round(got.metadata.density.per("inch").x) == 144


def test_of_the_same_size_nothing_of_exif_changes():
    source = decode(zoo.saved(PHOTO, "JPEG", exif=camera_exif()), max_pixels=MAX_PIXELS)
    data, notes = encode(source, "jpeg", quality=90)
    assert notes == ()
    assert decode(data, max_pixels=MAX_PIXELS).exif == source.exif == exif.bare(camera_exif())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_turn_their_resolution_and_subject(orientation):
    pixels = zoo.photo(48, 64)
    # Stored: a bright subject of 8 x 6 around (20, 10).
    pixels[7:13, 16:24] = 255
    file = zoo.saved(pixels, "PNG", exif=camera_exif(orientation, 72, 144), dpi=(72, 144))
    got = decode(file, max_pixels=MAX_PIXELS)
    across, down = (144, 72) if orientation >= 5 else (72, 144)
    assert got.metadata.density
    assert [round(side) for side in got.metadata.density.per("inch")[:2]] == [across, down]
    tags = stated(got.exif)
    assert (tags[0x011A], tags[0x011B]) == (across, down)
    x, y, width, height = tags[0x9214]
    assert (width, height) == ((6, 8) if orientation >= 5 else (8, 6))
    # All of it but its border, wherever its centre was rounded to.
    inside = got.pixels[y - height // 2 + 1 : y + height // 2, x - width // 2 + 1 : x + width // 2]
    assert inside.size
    assert (inside == 255).all()


def test_directions_that_share_one_number_are_scaled_once():
    block = b"II*\0\x08\0\0\0\x02\0"
    for tag in (0x011A, 0x011B):
        block += struct.pack("<HHII", tag, 5, 1, 38)
    block += struct.pack("<III", 0, 300, 1)
    made = exif.scaled(block, Fraction(2), Fraction(2))
    assert exif.density(made) == Density(Fraction(600), Fraction(600), "inch")


def test_the_shape_of_pixels_is_carried_unscaled():
    chunk = zoo.png_chunk(b"pHYs", struct.pack(">IIB", 2, 1, 0))
    png = zoo.saved(PHOTO)
    source = decode(png[:33] + chunk + png[33:], max_pixels=MAX_PIXELS)
    assert source.metadata.density == Density(Fraction(2), Fraction(1), "")
    for format in ("png", "jpeg", "tiff"):
        data, notes = encode(enlarged(source, 2), format, quality=90)
        assert notes == ()
        assert decode(data, max_pixels=MAX_PIXELS).metadata.density == source.metadata.density
    assert encode(source, "bmp", quality=90)[1] == ("resolution-dropped",)


def test_more_than_jfif_holds_is_named():
    picture = decode(SOURCES["jfif"][0], max_pixels=MAX_PIXELS)

    def of(dpi: int) -> Picture:
        density = Density(Fraction(dpi), Fraction(dpi), "inch")
        return replace(picture, metadata=replace(picture.metadata, density=density))

    data, notes = encode(of(100_000), "jpeg", quality=90)
    assert notes == ()
    held = decode(data, max_pixels=MAX_PIXELS).metadata.density
    assert held == Density(Fraction(39_370), Fraction(39_370), "cm")
    # EXIF holds it.
    data, notes = encode(of(200_000), "jpeg", quality=90)
    assert notes == ()
    assert decode(data, max_pixels=MAX_PIXELS).metadata.density == INCH.times(
        Fraction(2000, 3), Fraction(2000, 3)
    )
    crowded = replace(of(200_000), exif=exif.bare(zoo.exif_block()))
    assert encode(crowded, "jpeg", quality=90)[1] == ("resolution-dropped",)
    assert {"resolution-dropped", "resolution-scaled"} <= NOTES.keys()


def test_a_picture_without_resolution_gets_none():
    for format in WRITABLE:
        data, notes = encode(decode(zoo.saved(PHOTO), max_pixels=MAX_PIXELS), format, quality=90)
        assert notes == ()
        assert read_facts(io.BytesIO(data)).metadata.density is None


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (0, 0),
        (-1, 1),
        (None, 72),
        (72, None),
        (IFDRational(1, 0), 72),
        (float("nan"), 1),
        (float("inf"), 1),
        ("x", 1),
    ],
)
def test_what_cannot_be_a_resolution_is_none(x, y):
    assert density_of(x, y, "inch") is None


@pytest.mark.parametrize(
    "value", ["3", "1/3", "118110001/10007", "99999999999", "1/99999999999", "4294967296/4294967297"]
)
def test_rationals_have_32_bits(value):
    number, parts = as_rational(Fraction(value))
    assert 0 < number < 2**32
    assert 0 < parts < 2**32
    assert number / parts == pytest.approx(min(float(Fraction(value)), 2**32 - 1), rel=1e-6, abs=1e-9)
