"""PSNR and SSIM equal their formulas and the published bicubic rows on the benchmarks."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgtx.errors import UsageError
from imgtx.imageops.metrics import psnr, psnr_y, rgb_to_y, ssim, ssim_y
from imgtx.imageops.resize import imresize, modcrop

DATA = Path(os.environ.get("IMGTX_DATA", Path(__file__).parents[3] / "../shared/data"))


def noisy_pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, shape).astype(np.float64)
    return clean, np.clip(clean + rng.normal(0, 20, shape), 0, 255)


def test_luma_of_known_colours():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    expected = [[16, 235, 16 + 65.481, 16 + 128.553, 16 + 24.966]]
    np.testing.assert_allclose(rgb_to_y(colours), expected)


def test_grey_is_compared_without_conversion():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(rgb_to_y(grey), grey)
    np.testing.assert_array_equal(rgb_to_y(grey[..., None]), grey)


def test_psnr_of_a_constant_error():
    a = np.full((8, 9, 3), 100, np.uint8)
    assert psnr(a, a + np.uint8(5)) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(a, a) == math.inf


def test_unsigned_images_do_not_wrap_around():
    assert psnr(np.full((4, 4), 3, np.uint8), np.full((4, 4), 5, np.uint8)) == psnr(
        np.full((4, 4), 5, np.uint8), np.full((4, 4), 3, np.uint8)
    )


def test_crop_excludes_the_border():
    a = np.zeros((10, 12), np.uint8)
    b = a.copy()
    b[0], b[:, -1] = 255, 255
    assert psnr(a, b, crop=1) == math.inf
    assert psnr(a, b) < 20
    colour_a, colour_b = np.stack([a] * 3, -1), np.stack([b] * 3, -1)
    assert psnr_y(colour_a, colour_b, crop=1) == math.inf
    assert psnr_y(colour_a, colour_b, crop=0) < 20


def test_ssim_equals_the_formula_written_out():
    a, b = noisy_pair((13, 14))
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(3):
        for left in range(4):
            x, y = (image[top : top + 11, left : left + 11] for image in (a, b))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x, var_y = ((window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum())
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            numerator = (2 * mean_x * mean_y + 2.55**2) * (2 * covariance + 7.65**2)
            values.append(numerator / ((mean_x**2 + mean_y**2 + 2.55**2) * (var_x + var_y + 7.65**2)))
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-12)
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_colour_is_the_mean_over_channels():
    a, b = noisy_pair((15, 16, 3))
    assert ssim(a, b, crop=2) == pytest.approx(
        np.mean([ssim(a[..., c], b[..., c], crop=2) for c in range(3)])
    )
    assert ssim_y(a, b, crop=2) == pytest.approx(ssim(rgb_to_y(a), rgb_to_y(b), crop=2))


def test_wrong_arguments_are_refused():
    with pytest.raises(UsageError, match="shapes"):
        psnr(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(UsageError, match="crop=2"):
        psnr(np.zeros((4, 9)), np.zeros((4, 9)), crop=2)
    with pytest.raises(UsageError, match="11x11"):
        ssim(np.zeros((12, 20)), np.zeros((12, 20)), crop=1)
    with pytest.raises(UsageError, match="rgb_to_y"):
        rgb_to_y(np.zeros((4, 4, 2)))


# PSNR-Y is printed as 33.66 / 30.39 / 28.42, 30.24 / 26.00 and 29.56 / 25.96 in papers that round luma. There
# SSIM-Y of Set5 is 0.9299 and 0.8104; float luma gives 0.0004 and 0.0007 more.
# B100 has a hundred images: too slow for the fast tests.
BICUBIC_ROWS = [
    ("set5", 2, 33.67, 0.9299),
    ("set5", 3, 30.40, None),
    ("set5", 4, 28.43, 0.8104),
    ("set14", 2, 30.22, None),
    ("set14", 4, 25.99, None),
    pytest.param("b100", 2, 29.55, None, marks=pytest.mark.nightly),
    pytest.param("b100", 4, 25.96, None, marks=pytest.mark.nightly),
]


@pytest.mark.parametrize(("dataset", "scale", "published_psnr", "published_ssim"), BICUBIC_ROWS)
def test_published_bicubic_rows(dataset, scale, published_psnr, published_ssim):
    folder = DATA / "benchmarks" / dataset
    if not folder.is_dir():
        pytest.skip("no benchmark images: set IMGTX_DATA to the folder that holds benchmarks/")
    psnrs, ssims = [], []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as file:
            clean = modcrop(np.asarray(file if file.mode == "L" else file.convert("RGB")), scale)
        enlarged = imresize(imresize(clean, 1 / scale), scale)
        psnrs.append(psnr_y(enlarged, clean, crop=scale))
        if published_ssim:
            ssims.append(ssim_y(enlarged, clean, crop=scale))
    assert np.mean(psnrs) == pytest.approx(published_psnr, abs=0.02)
    if published_ssim:
        assert np.mean(ssims) == pytest.approx(published_ssim, abs=0.001)
