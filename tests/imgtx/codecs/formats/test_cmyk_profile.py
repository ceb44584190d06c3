"""CMYK with a profile becomes sRGB through that profile, in memory and on disk, as libvips converts it too."""

import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from imgtx.codecs import decode
from imgtx.codecs.spool import spool_in
from imgtx.imageops.geometry import Tile
from tests.support.zoo import saved

MAX_PIXELS = 10**6


@pytest.fixture(scope="module")
def profile() -> bytes:
    """Return the CMYK profile that libvips contains."""
    return bytes(pyvips.Operation.call("profile_load", "cmyk"))


@pytest.fixture(scope="module")
def inks() -> np.ndarray:
    """Return (24, 32, 4) uint8: all mixtures of a few amounts of each ink."""
    amounts = np.array([0, 64, 128, 192])
    mixtures = np.stack(np.meshgrid(amounts, amounts, amounts, amounts[:3]), axis=-1).reshape(-1, 4)
    return np.resize(mixtures, (24, 32, 4)).astype(np.uint8)


@pytest.fixture(scope="module")
def expected(inks, profile) -> np.ndarray:
    """Return libvips's conversion of the inks by the profile, with perceptual intent."""
    image = pyvips.Image.new_from_array(inks).copy(interpretation="cmyk")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    made = image.icc_transform("srgb", embedded=True, intent="perceptual", black_point_compensation=False)
    return made.numpy()[..., :3]


def test_an_embedded_profile_determines_the_colours(inks, profile, expected):
    data = saved(Image.fromarray(inks, "CMYK"), "TIFF", icc_profile=profile)
    found = decode(data, max_pixels=MAX_PIXELS)
    assert found.notes == ("cmyk->srgb",)
    assert found.icc == b"", "the pixels are sRGB now"
    difference = np.abs(found.pixels.astype(int) - expected)
    assert difference.max() <= 3, difference.max()
    plain = decode(saved(Image.fromarray(inks, "CMYK"), "TIFF"), max_pixels=MAX_PIXELS)
    assert plain.notes == ("cmyk->rgb",)
    assert np.abs(plain.pixels.astype(int) - found.pixels).mean() > 10, "without a profile it looks different"


def test_a_jpeg_is_converted_by_its_profile(profile, expected, inks):
    """The inks are inverted, as Adobe writes them."""
    big = Image.fromarray(inks, "CMYK").resize((256, 192), Image.Resampling.NEAREST)
    out = io.BytesIO()
    big.save(out, "JPEG", quality=100, subsampling=0, icc_profile=profile)
    found = decode(out.getvalue(), max_pixels=MAX_PIXELS)
    assert "cmyk->srgb" in found.notes
    assert np.abs(found.pixels[4::8, 4::8].astype(int) - expected).mean() < 3


def test_an_image_on_disk_gets_the_same_pixels(inks, profile, tmp_path: Path):
    data = saved(Image.fromarray(inks, "CMYK"), "TIFF", icc_profile=profile)
    spooled = spool_in(io.BytesIO(data), tmp_path, max_pixels=MAX_PIXELS)
    assert spooled.notes == ("cmyk->srgb",)
    np.testing.assert_array_equal(
        spooled.read(Tile(0, 0, 24, 32)), decode(data, max_pixels=MAX_PIXELS).pixels
    )


def test_an_invalid_profile_is_ignored(inks, profile):
    damaged = profile[:200]
    found = decode(saved(Image.fromarray(inks, "CMYK"), "TIFF", icc_profile=damaged), max_pixels=MAX_PIXELS)
    assert "cmyk->rgb" in found.notes
    assert "icc-dropped" in found.notes
