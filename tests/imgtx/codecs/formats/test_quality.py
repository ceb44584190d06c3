"""The quality that a file was saved with, by its header."""

import io

import pytest
from PIL import Image

from imgtx.codecs import read_header
from imgtx.codecs.formats.jpeg_quality import quality_of
from imgtx.codecs.formats.webp_quality import quality_of as webp_quality
from tests.support.zoo import photo


def quality(format: str, mode: str = "RGB", **settings) -> int:
    file = io.BytesIO()
    Image.fromarray(photo(16, 16)).convert(mode).save(file, format, **settings)
    return read_header(file.getvalue()).quality


def test_every_quality_of_libjpeg_is_told_exactly():
    assert [quality("JPEG", quality=value) for value in range(1, 101)] == [*range(1, 101)]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_have_the_same_table(mode):
    assert quality("JPEG", mode, quality=60) == 60


def test_a_webp_is_measured_by_its_quantisers():
    """In the measure of JPEG, in which 77 is 90; libwebp spreads quality over segments."""
    found = [quality("WEBP", quality=value) for value in (10, 30, 50, 70, 80, 90, 100)]
    assert found == sorted(found)
    assert found[0] < 40
    assert found[3] < 95
    assert min(found[4:]) >= 90
    assert webp_quality(b"RIFF") == webp_quality(b"\0" * 64) == 0
    # A frame that ends early, with nothing but its head.
    assert webp_quality(b"\x10\0\0\x9d\x01\x2a" + bytes(6)) == 100


def test_other_formats_state_only_whether_they_lose_something():
    assert quality("WEBP", lossless=True) == 100
    assert [quality(format) for format in ("PNG", "BMP", "TIFF")] == [100] * 3
    assert [quality("TIFF", compression=name) for name in ("jpeg", "tiff_lzw")] == [0, 100]


def test_tables_of_no_quality_get_the_nearest():
    assert quality_of([1] * 64) == 100
    assert quality_of([255] * 64) == quality_of([65_535] * 64) == 1
    assert quality_of([2] * 64) == 98
    assert quality_of([]) == 0
