"""Colours under transparent pixels: what a model is given instead, whole and window by window, and what comes out."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageDraw

import imgtx
from imgtx.imageops.geometry import Tile
from imgtx.imageops.hidden import (
    ENOUGH,
    VisibleColours,
    hidden_part,
    with_hidden_part,
    without_hidden_colours,
)
from imgtx.imageops.resize import imresize
from imgtx.inference.predictor import Predictor
from imgtx.models.info import ModelInfo
from tests.support.small_models import Nearest, Windows

TOPS = {np.uint8: 255, np.uint16: 65535}


def disc(side: int, dtype: type = np.uint8) -> np.ndarray:
    """Return the alpha of an anti-aliased disc; Lanczos rings, and leaves specks of alpha 1 and 2 around it."""
    big = Image.new("L", (4 * side, 4 * side))
    ImageDraw.Draw(big).ellipse([side // 5] * 2 + [4 * side - side // 5] * 2, fill=255)
    alpha = np.asarray(big.resize((side, side), Image.Resampling.LANCZOS))
    return alpha.astype(dtype) * (TOPS[dtype] // 255)


def soft(side: int, dtype: type = np.uint8) -> np.ndarray:
    """Return an alpha that fades from opaque to nothing over half of the side."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return (np.clip(1.6 - 2 * np.hypot(x, y), 0, 1) * TOPS[dtype]).astype(dtype)


def hairs(side: int, dtype: type = np.uint8) -> np.ndarray:
    """Return the alpha of strands one pixel wide at most, none of them opaque."""
    big = Image.new("L", (4 * side, 4 * side))
    draw = ImageDraw.Draw(big)
    for start in range(0, 8 * side, side // 2):
        draw.line((start, 0, start - 3 * side, 4 * side), fill=200, width=2)
    return np.asarray(big.resize((side, side), Image.Resampling.BOX)).astype(dtype) * (TOPS[dtype] // 255)


def random_levels(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return rng.integers(0, TOPS[dtype] + 1, shape, dtype)


def over(colours: np.ndarray, alpha: np.ndarray, ground: int) -> np.ndarray:
    """Return levels of 255 as displayed over a grey ground, as floats."""
    top = np.iinfo(alpha.dtype).max
    cover = alpha[..., None] / top
    return colours * (255 / top) * cover + ground * (1 - cover)


def read_from(pixels: np.ndarray, alpha: np.ndarray):
    def read(window: Tile) -> tuple[np.ndarray, np.ndarray]:
        place = slice(window.top, window.bottom), slice(window.left, window.right)
        return pixels[place], alpha[place]

    return read


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [disc, soft, hairs])
def test_hidden_colours_change_nothing_and_visible_ones_stay(shape, channels, dtype):
    rng = np.random.default_rng(0)
    alpha = shape(90, dtype)
    pixels = random_levels(rng, (90, 90, channels), dtype)
    other = np.where(alpha[..., None] > 0, pixels, random_levels(rng, pixels.shape, dtype))
    made = without_hidden_colours(pixels, alpha)
    assert made.dtype == dtype
    np.testing.assert_array_equal(made, without_hidden_colours(other, alpha))
    clear = alpha >= TOPS[dtype] * ENOUGH
    np.testing.assert_array_equal(made[clear], pixels[clear])
    for ground in (0, 255):
        # Only pixels that hardly show move, by 8 levels as displayed at most.
        assert np.abs(over(made, alpha, ground) - over(pixels, alpha, ground)).max() <= 8.5


@pytest.mark.parametrize("shape", [disc, soft, hairs])
def test_hidden_pixels_take_the_colour_around_them(shape):
    rng = np.random.default_rng(0)
    alpha = shape(90)
    pixels = random_levels(rng, (90, 90, 3), np.uint8)
    # Left of the middle all that is visible is red, right of it blue.
    pixels[alpha > 0] = [200, 30, 40]
    right = alpha.copy()
    right[:, :45] = 0
    pixels[right > 0] = [20, 60, 220]
    made = without_hidden_colours(pixels, alpha)
    reach = sliding_window_view(np.pad(alpha, 2), (5, 5)).max((2, 3)) > 128
    for side, colour in ((np.s_[:, :36], [200, 30, 40]), (np.s_[:, 54:], [20, 60, 220])):
        near = made[side][reach[side]]
        np.testing.assert_allclose(near, np.broadcast_to(colour, near.shape), atol=4)


def test_a_faint_picture_keeps_its_colours():
    """A watermark is nearly transparent everywhere: its pixels count beside each other, whatever is opaque."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    alpha = np.full((64, 64), 5, np.uint8)
    pixels[:, :8], alpha[:, :8] = [255, 0, 0], 255
    made = without_hidden_colours(pixels, alpha)
    np.testing.assert_array_equal(made[:, 16:24], np.zeros((64, 8, 3)))
    np.testing.assert_array_equal(made[:, 40:], np.full((64, 24, 3), 255))


def test_what_is_never_visible_stays():
    pixels = random_levels(np.random.default_rng(0), (20, 30, 3), np.uint8)
    assert without_hidden_colours(pixels, None) is pixels
    np.testing.assert_array_equal(without_hidden_colours(pixels, np.zeros((20, 30), np.uint8)), pixels)
    assert without_hidden_colours(pixels, np.full((20, 30), 255, np.uint8)) is pixels


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (33, 1), (150, 97), (200, 333)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_window_equals_that_part_of_the_whole(height, width, dtype):
    rng = np.random.default_rng(height)
    pixels = random_levels(rng, (height, width, 3), dtype)
    alpha = random_levels(rng, (height, width), dtype)
    alpha[rng.random((height, width)) < 0.7] = 0
    # An edge along a border of the windows, and a hidden part wider than any window.
    alpha[:, width // 2 :] = 0
    whole = without_hidden_colours(pixels, alpha)
    visible = VisibleColours(height, width, read_from(pixels, alpha))
    for top in range(0, height, 37):
        for left in range(0, width, 16):
            window = Tile(top, left, min(37, height - top), min(16, width - left))
            expected = whole[window.top : window.bottom, window.left : window.right]
            np.testing.assert_array_equal(visible(window), expected)


def test_a_window_reads_no_more_than_its_surroundings():
    sizes = []

    def read(window: Tile) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(window.height * window.width)
        return np.zeros((window.height, window.width, 3), np.uint8), np.eye(
            window.height, window.width, dtype=np.uint8
        )

    visible = VisibleColours(40_000, 1_000, read)
    assert max(sizes) <= 1 << 20
    assert sum(sizes) == 40_000_000
    sizes.clear()
    visible(Tile(20_000, 500, 64, 64))
    assert sum(sizes) <= 64**2 + 160**2


def test_the_hidden_part_turns_the_colours_back():
    rng = np.random.default_rng(0)
    pixels, alpha = random_levels(rng, (40, 50, 3), np.uint16), disc(50, np.uint16)[:40]
    hole = rng.random((40, 50)) < 0.3
    shown = without_hidden_colours(pixels, alpha)
    packed = hidden_part(pixels, shown, hole)
    back = with_hidden_part(shown, packed)
    np.testing.assert_array_equal(back[~hole], pixels[~hole])
    np.testing.assert_array_equal(back[hole], shown[hole])
    assert hidden_part(pixels, pixels.copy(), hole) == b""


@pytest.mark.parametrize("name", ["sr-x2", "sr-x4", "restore"])
def test_a_light_disc_over_hidden_black_gets_no_dark_rim(name):
    """It went down to level 42 with sr-x2: bicubic interpolation of premultiplied colours keeps it at 245."""
    alpha = disc(72)
    image = np.dstack([np.where(alpha > 0, 245, 0).astype(np.uint8)] * 3 + [alpha])
    predictor = imgtx.load(name, device="cpu")
    made = predictor(image)
    assert over(made[..., :3], made[..., 3], 255).min() > 243
    scaled = alpha if predictor.info.scale == 1 else imresize(alpha, predictor.info.scale)
    np.testing.assert_array_equal(made[..., 3], scaled)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiles_agree_with_the_whole_at_an_edge_along_their_border(channels, dtype):
    rng = np.random.default_rng(0)
    image = random_levels(rng, (96, 128, channels + 1), dtype)
    image[:, :, -1] = np.where(np.arange(128) < 64, TOPS[dtype], 0)
    other = image.copy()
    other[:, 64:, :-1] = random_levels(rng, (96, 64, channels), dtype)
    whole = Predictor(Windows(), tile=200)(image)
    for tile in (16, 24, 64):
        np.testing.assert_array_equal(Predictor(Windows(), tile=tile)(other), whole)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_hidden_colours_in_other_channels_leave_a_grey_picture_grey(dtype):
    rng = np.random.default_rng(0)
    alpha = disc(40, dtype)
    grey = random_levels(rng, (40, 40, 1), dtype)
    pixels = np.where(alpha[..., None] > 0, grey, random_levels(rng, (40, 40, 3), dtype))
    made = Predictor(Nearest())(np.dstack([pixels, alpha]))
    assert (made[..., 0] == made[..., 1]).all()
    assert (made[..., 1] == made[..., 2]).all()
    stylised = Predictor(Nearest(ModelInfo("colours", "style-transfer", 2, multiple=4, halo=4)))
    seen = stylised(np.dstack([grey, grey, grey]))
    np.testing.assert_array_equal(seen[::2, ::2, :1], grey)
