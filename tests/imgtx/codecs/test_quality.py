"""The quality that a file was saved with, by its header."""

import io

import pytest
from PIL import Image

from imgtx.codecs import read_header
from imgtx.codecs.jpeg_quality import quality_of
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


def test_other_formats_state_only_whether_they_lose_something():
    assert quality("WEBP", quality=90) == 0
    assert quality("WEBP", lossless=True) == 100
    assert [quality(format) for format in ("PNG", "BMP", "TIFF")] == [100] * 3
    assert [quality("TIFF", compression=name) for name in ("jpeg", "tiff_lzw")] == [0, 100]


def test_tables_of_no_quality_get_the_nearest():
    assert quality_of([1] * 64) == 100
    assert quality_of([255] * 64) == quality_of([65_535] * 64) == 1
    assert quality_of([2] * 64) == 98
    assert quality_of([]) == 0
