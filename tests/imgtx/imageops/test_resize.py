"""imresize equals MATLAB's definition, written out pixel by pixel, and has its known kernel weights."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgtx.errors import UsageError
from imgtx.imageops import resize
from imgtx.imageops.resize import imresize, modcrop, resize_in_bands


def cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x <= 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def matlab_line(line: list[float], out_length: int, scale: float) -> list[float]:
    """Compute `contributions` of imresize.m in its own 1-based indices, one output pixel at a time."""
    n = len(line)
    stretch = min(scale, 1.0)
    width = 4 / stretch
    result = []
    for x in range(1, out_length + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - width / 2)
        taps = [left + k for k in range(math.ceil(width) + 2)]
        weights = [stretch * cubic(stretch * (u - i)) for i in taps]
        mirror = [*range(1, n + 1), *range(n, 0, -1)]
        values = [line[mirror[(i - 1) % (2 * n)] - 1] for i in taps]
        result.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    return result


def matlab_imresize(image: np.ndarray, scales: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    dtype = image.dtype
    out = image.astype(np.float64)
    for axis in sorted((0, 1), key=lambda a: scales[a]):
        out = np.apply_along_axis(lambda v, a=axis: matlab_line(list(v), size[a], scales[a]), axis, out)
        if dtype.kind == "u":
            out = np.clip(np.floor(out + 0.5), 0, np.iinfo(dtype).max)
    return out.astype(dtype)


def random_image(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith("u"):
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return rng.normal(size=shape).astype(dtype)


def resized_axis(image: np.ndarray, scale: float, axis: int) -> np.ndarray:
    """Run one pass of `imresize` alone: the lines of the axis are channels of an image one pixel wide.

    Across that pixel all values are equal, so the other pass does not change them.
    """
    lines = np.moveaxis(image, axis, 0)
    out = imresize(lines.reshape(len(lines), 1, -1), scale)
    assert (out == out[:, :1]).all()
    return np.moveaxis(out[:, 0].reshape(-1, *lines.shape[1:]), 0, axis)


def assert_rounded(got: np.ndarray, unrounded: np.ndarray, *, exact: bool) -> None:
    """Assert rounding half up and clipping; a tie may differ only where the last bits of an inexact sum decide."""
    expected = np.clip(np.floor(unrounded + 0.5), 0, np.iinfo(got.dtype).max).astype(int)
    difference = np.abs(got.astype(int) - expected)
    tie = (np.abs(unrounded - np.floor(unrounded) - 0.5) < 1e-9) & (not exact)
    assert (difference <= tie).all(), f"{difference.max()} off, {(difference > tie).sum()} where no tie is"


@settings(max_examples=40)
@given(
    seed=st.integers(0, 99),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    scale=st.sampled_from([2, 3, 4, 1.5, 0.5, 1 / 3, 0.25, 0.7, 1]),
    dtype=st.sampled_from(["uint8", "uint16", "float64"]),
)
# Ties in both passes.
@example(seed=58, height=2, width=16, scale=1.5, dtype="uint16")
def test_equals_matlabs_definition(seed, height, width, scale, dtype):
    image = random_image(seed, (height, width, 2), dtype)
    size = math.ceil(scale * height), math.ceil(scale * width)
    got = imresize(image, scale)
    assert (got.dtype, got.shape) == (image.dtype, (*size, 2))
    if dtype == "float64":
        np.testing.assert_allclose(got, matlab_imresize(image, (scale, scale), size), atol=1e-12)
        return
    # A tie that falls the other way in the first pass moves the second by any fraction of a level: each pass is
    # compared with the definition by itself, and the two with each other.
    passed = image
    for axis in (0, 1):
        before, passed = passed.astype(np.float64), resized_axis(passed, scale, axis)
        unrounded = np.apply_along_axis(lambda v, a=axis: matlab_line(list(v), size[a], scale), axis, before)
        # These weights have few bits.
        assert_rounded(passed, unrounded, exact=math.log2(scale).is_integer())
    np.testing.assert_array_equal(got, passed)


@settings(max_examples=25)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    out_height=st.integers(1, 20),
    out_width=st.integers(1, 20),
)
def test_a_target_size_gives_each_side_its_own_scale(height, width, out_height, out_width):
    image = random_image(1, (height, width), "float64")
    expected = matlab_imresize(image, (out_height / height, out_width / width), (out_height, out_width))
    got = imresize(image, size=(out_height, out_width))
    assert got.shape == (out_height, out_width)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_the_axis_with_the_smaller_scale_is_resized_first():
    image = random_image(2, (24, 24), "uint8")
    got = imresize(image, size=(48, 6))
    expected = matlab_imresize(image, (2.0, 0.25), (48, 6))
    np.testing.assert_array_equal(got, expected)
    columns_last = matlab_imresize(matlab_imresize(image, (2.0, 1.0), (48, 24)), (1.0, 0.25), (48, 6))
    assert (got != columns_last).any()


def test_kernel_weights_of_x2_and_half():
    impulse = np.zeros((1, 9))
    impulse[0, 4] = 1.0
    enlarged = imresize(impulse, size=(1, 18))[0]
    np.testing.assert_allclose(enlarged[5:13] * 128, [-3, -9, 29, 111, 111, 29, -9, -3], atol=1e-12)
    impulse = np.zeros((1, 16))
    impulse[0, 8] = 1.0
    shrunk = imresize(impulse, size=(1, 8))[0]
    np.testing.assert_allclose(shrunk[2:7] * 256, [-3, 29, 111, -9, 0], atol=1e-12)


def test_rounds_half_up_and_clips_between_the_passes():
    image = random_image(3, (32, 32), "uint8")
    once = np.clip(np.floor(imresize(image.astype(np.float64), 0.5) + 0.5), 0, 255).astype(np.uint8)
    assert (imresize(image, 0.5) != once).any()
    checker = np.zeros((8, 8), np.uint8)
    checker[:, 4:] = 255
    enlarged = imresize(checker, 2)
    assert enlarged.min() == 0
    assert enlarged.max() == 255
    # Floats keep the overshoot.
    assert imresize(checker.astype(np.float64), 2).max() > 255


def test_a_constant_image_stays_constant_in_every_dtype():
    for dtype, value in [("uint8", 201), ("uint16", 65535), ("float32", 0.25)]:
        for scale in (1 / 3, 0.4, 2, 3):
            out = imresize(np.full((11, 7, 3), value, dtype), scale)
            np.testing.assert_allclose(out, value, rtol=1e-6)


def test_the_block_size_changes_nothing(monkeypatch):
    image = random_image(4, (37, 41, 3), "uint8")
    whole = {scale: imresize(image, scale) for scale in (0.5, 3)}
    monkeypatch.setattr(resize, "_BLOCK_ELEMENTS", 500)
    for scale, expected in whole.items():
        np.testing.assert_array_equal(imresize(image, scale), expected)


def test_two_axes_equal_one_channel_and_views_equal_copies():
    image = random_image(5, (20, 30, 3), "uint8")
    np.testing.assert_array_equal(imresize(image, 2)[..., 1], imresize(image[..., 1], 2))
    np.testing.assert_array_equal(imresize(image[::-1], 0.5), imresize(image[::-1].copy(), 0.5))


def test_modcrop_cuts_bottom_and_right():
    image = np.arange(7 * 5).reshape(7, 5)
    np.testing.assert_array_equal(modcrop(image, 3), image[:6, :3])
    assert modcrop(np.zeros((2, 9, 3)), 4).shape == (0, 8, 3)


@pytest.mark.parametrize(
    ("image", "arguments", "part"),
    [
        (np.zeros((4, 4), bool), {"scale": 2}, "dtype bool"),
        (np.zeros((4, 4, 3, 1), np.uint8), {"scale": 2}, "shape"),
        (np.zeros((0, 4), np.uint8), {"scale": 2}, "shape"),
        (np.zeros((4, 4), np.uint8), {}, "exactly one"),
        (np.zeros((4, 4), np.uint8), {"scale": 2, "size": (8, 8)}, "exactly one"),
        (np.zeros((4, 4), np.uint8), {"scale": 0}, "scale=0"),
        (np.zeros((4, 4), np.uint8), {"scale": math.inf}, "scale=inf"),
        (np.zeros((4, 4), np.uint8), {"size": (0, 8)}, "size=\\(0, 8\\)"),
    ],
)
def test_wrong_arguments_are_refused(image, arguments, part):
    with pytest.raises(UsageError, match=part):
        imresize(image, **arguments)


@pytest.mark.parametrize("new", [(30, 41), (57, 41), (30, 90), (1, 1), (61, 83)])
@pytest.mark.parametrize("pixels", [1, 500, 10**6])
def test_in_bands_it_is_the_same_to_the_bit(new, pixels):
    image = np.random.default_rng(0).integers(0, 65_536, (61, 83, 3), np.uint16)
    bands = [*resize_in_bands(lambda top, bottom: image[top:bottom], (61, 83), new, pixels=pixels)]
    assert [top for top, _ in bands] == [*np.cumsum([0, *(len(rows) for _, rows in bands[:-1])])]
    assert np.array_equal(np.concatenate([rows for _, rows in bands]), imresize(image, size=new))
