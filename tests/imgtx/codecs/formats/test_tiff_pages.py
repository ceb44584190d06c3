"""TIFFs that hold more than their picture: thumbnails, pyramids, masks, pages."""

import numpy as np
import pytest

from imgtx.codecs import decode, encode
from imgtx.codecs.metadata import exif
from imgtx.errors import ImageError
from tests.support import zoo
from tests.support.pictures import MAX_PIXELS


def members(written: bool) -> dict[str, bytes]:
    return {key: data for key, (data, wanted) in zoo.paged_tiffs().items() if wanted.written == written}


@pytest.mark.parametrize("key", members(written=True))
def test_the_full_size_picture_is_taken(key):
    got = decode(members(written=True)[key], max_pixels=MAX_PIXELS)
    expected = zoo.photo(channels=1)
    turned = np.rot90(expected, -1) if "turned" in key else expected
    np.testing.assert_array_equal(got.pixels[..., 0], turned)


def test_what_describes_the_picture_is_found_above_it():
    """As in DNG: artist and orientation are in the directory of the thumbnail."""
    data, _ = zoo.paged_tiffs()["pages/below-a-thumbnail-turned.tif"]
    got = decode(data, max_pixels=MAX_PIXELS)
    assert b"A. Nobody" in got.exif
    assert exif.orientation(got.exif) == 1
    again = decode(encode(got, "tiff", quality=90)[0], max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(again.pixels, got.pixels)
    assert again.notes == ()


def test_a_chain_that_never_ends_is_read_once():
    data = bytearray(zoo.tiff_of_pages([{"pixels": zoo.photo(channels=1)}]))
    data[-4:] = data[4:8]
    assert decode(bytes(data), max_pixels=MAX_PIXELS).notes == ()


@pytest.mark.parametrize("key", members(written=False))
def test_a_refusal_says_which_pictures_there_are(key):
    with pytest.raises(ImageError, match=r"pages|16 x 12|128 x 96") as caught:
        decode(members(written=False)[key], max_pixels=MAX_PIXELS)
    assert caught.value.reason in ("multi_page", "which_picture")
