"""Resizing and cutting as published super-resolution tables do it (numpy only).

`imresize` reproduces MATLAB's function of that name with its default bicubic method, because the tables are made with
it: Pillow's bicubic is up to 15 levels away from it and moves PSNR by 0.1-0.3 dB.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from imgtx.errors import UsageError

# Elements of one float64 work array: small enough to stay in a core's cache at any image size.
_BLOCK_ELEMENTS = 1 << 17
_DTYPES = ("uint8", "uint16", "float32", "float64")


def imresize(
    image: np.ndarray, scale: float | None = None, *, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Resize as MATLAB's bicubic does: `imresize(image, scale)` or `imresize(image, [height width])`.

    Cubic kernel with a = -0.5, widened when shrinking (antialias), edges mirrored. uint8 and uint16 are
    rounded (half up) and clipped after each of the two passes, as MATLAB does it; with float between the
    passes the result is up to two levels away. The smaller scale goes first, rows before columns when equal.

    Args:
        image: (H, W) or (H, W, C), uint8, uint16, float32 or float64, any range.
        scale: factor of both sides; the output has ceil(scale * side) pixels.
        size: (height, width) of the output instead of `scale`; each side then has its own factor.

    Returns:
        A new array of the same dtype and number of axes; floats are neither rounded nor clipped.

    Raises:
        UsageError: another dtype or number of axes, an empty image, not exactly one of `scale` and `size`.

    Source: MATLAB R2021b `imresize.m`, functions `contributions` and `resizeAlongDim`; the kernel is Keys,
    "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6), 1981.
    """
    image = np.asarray(image)
    _check_image(image)
    (row_scale, column_scale), (height, width) = _scales_and_size(image, scale, size)
    pixels = image if image.ndim == 3 else image[..., None]
    rows = _contributions(pixels.shape[0], height, row_scale)
    columns = _contributions(pixels.shape[1], width, column_scale)
    if row_scale <= column_scale:
        out = _resize(pixels, rows, columns)
    else:
        out = np.ascontiguousarray(_resize(pixels.swapaxes(0, 1), columns, rows).swapaxes(0, 1))
    return out if image.ndim == 3 else out[..., 0]


def resize_in_bands(
    read: Callable[[int, int], np.ndarray], size: tuple[int, int], new: tuple[int, int], *, pixels: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield `imresize(image, size=new)` from top to bottom as (top, rows), for an image too large for memory.

    read: from the first and the last plus one of the image's rows to them, (rows, width, C) of an integer dtype.
    size: the image's height and width. pixels: how many of the image are read together, about.
    """
    (height, width), (new_height, new_width) = size, new
    row_scale, column_scale = new_height / height, new_width / width
    index, weights = _contributions(height, new_height, row_scale)
    columns = _contributions(width, new_width, column_scale)
    step = max(1, int(pixels / width * row_scale))
    for top in range(0, new_height, step):
        block = slice(top, top + step)
        first, last = int(index[:, block].min()), int(index[:, block].max()) + 1
        band, rows = read(first, last), (index[:, block] - first, weights[:, block])
        if row_scale <= column_scale:
            yield top, _resize(band, rows, columns)
        else:
            yield top, np.ascontiguousarray(_resize(band.swapaxes(0, 1), columns, rows).swapaxes(0, 1))


def modcrop(image: np.ndarray, scale: int) -> np.ndarray:
    """Cut (H, W, ...) at the bottom and right to sides that are multiples of `scale`: a view, any dtype.

    Every published table cuts the clean image so before shrinking it.
    """
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def _check_image(image: np.ndarray) -> None:
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise UsageError(
            f"imresize: an array of shape {image.shape}, expected (height, width) or (height, width, channels), "
            "none of them 0: pass one image at a time"
        )
    if image.dtype.name not in _DTYPES:
        raise UsageError(
            f"imresize: unknown dtype {image.dtype}, expected one of {', '.join(_DTYPES)}: convert the image first"
        )


def _scales_and_size(
    image: np.ndarray, scale: float | None, size: tuple[int, int] | None
) -> tuple[tuple[float, float], tuple[int, int]]:
    if (scale is None) == (size is None):
        raise UsageError(
            f"imresize: scale={scale} and size={size}, expected exactly one of them: leave one out"
        )
    height, width = image.shape[:2]
    if size is not None:
        if len(size) != 2 or min(size) < 1:
            raise UsageError(
                f"imresize: size={size}, expected (height, width) of at least 1 pixel each: correct the size"
            )
        return (size[0] / height, size[1] / width), (int(size[0]), int(size[1]))
    assert scale is not None
    if not 0 < scale < math.inf:
        raise UsageError(
            f"imresize: scale={scale}, expected a finite factor above 0: use 0.5 to halve the sides"
        )
    return (scale, scale), (math.ceil(scale * height), math.ceil(scale * width))


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _contributions(length: int, out_length: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which inputs count for each output position, and how much: (taps, out_length) int and float64."""
    stretch = min(scale, 1.0)
    kernel_width = 4.0 / stretch
    # Centre of each output pixel in 0-based input coordinates; MATLAB counts from 1.
    centre = (np.arange(out_length) + 0.5) / scale - 0.5
    left = np.floor(centre + 1 - kernel_width / 2) - 1
    index = left + np.arange(math.ceil(kernel_width) + 2)[:, None]
    weights = _cubic(stretch * (centre - index))
    weights /= weights.sum(axis=0)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    index = mirrored[index.astype(np.int64) % (2 * length)]
    used = weights.any(axis=1)
    return index[used], weights[used]


def _resize(pixels: np.ndarray, first, second) -> np.ndarray:
    """Resize axis 0 by `first`, then axis 1 by `second`, a block of output rows at a time. (H, W, C)."""
    _, width, channels = pixels.shape
    out_height, out_width = first[0].shape[1], second[0].shape[1]
    out = np.empty((out_height, out_width, channels), pixels.dtype)
    step = max(1, _BLOCK_ELEMENTS // (max(width, out_width) * channels))
    for top in range(0, out_height, step):
        block = slice(top, top + step)
        rows = _resize_axis0(pixels, first[0][:, block], first[1][:, block])
        # Axis 1 goes to the front so that each tap reads whole contiguous rows of the block.
        columns = _resize_axis0(np.ascontiguousarray(rows.swapaxes(0, 1)), *second)
        out[block] = columns.swapaxes(0, 1)
    return out


def _resize_axis0(pixels: np.ndarray, index: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum the weighted inputs along axis 0, tap by tap in MATLAB's order, so that ties round the same everywhere."""
    total = np.zeros((index.shape[1], *pixels.shape[1:]))
    term = np.empty_like(total)
    for tap_index, tap_weights in zip(index, weights, strict=True):
        np.multiply(pixels[tap_index], tap_weights[:, None, None], out=term)
        total += term
    if pixels.dtype.kind == "u":
        total += 0.5
        np.floor(total, out=total)
        np.clip(total, 0, np.iinfo(pixels.dtype).max, out=total)
    return total.astype(pixels.dtype)
