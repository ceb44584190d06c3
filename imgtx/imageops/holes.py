"""Holes in an image: which pixels they are, and the smooth fill that a model starts from (numpy only).

A fill is computed from the whole image, however it is cut into tiles afterwards: a tile inside a hole larger than
itself gets the colours around the hole, and tiles agree with each other. The known pixels are averaged level by level
until no hole is left; on the way back each level's hole takes the coarser level's values, relaxed towards the mean of
the four neighbours (as Burt, "Moment images, polynomial fit filters and the problem of surface interpolation", CVPR
1988). Of an image too large for memory only the coarse levels are held whole; `Fill` computes any window of the same
result.

Shape legend: H and W pixels, C channels; a hole is (H, W) bool, true where the image is to be filled.
"""

from collections.abc import Callable

import numpy as np

from imgtx.imageops.geometry import Tile, squares
from imgtx.imageops.pyramid import halved, twice

# The lowest level of 255 in a mask that means hole.
WHITE = 128
# How often each level is relaxed.
SWEEPS = 6
# The levels that a window computes itself; the coarser ones are computed once for the image.
LEVELS = 4
BLOCK = 2**LEVELS
# Pixels around a window that its own levels reach: SWEEPS and two more of each, then one of the coarse level.
MARGIN = -(-(SWEEPS + 2) * (BLOCK - 1) // BLOCK) * BLOCK + BLOCK

# From a rectangle of the image to its pixels (height, width, C), integers, and its hole (height, width).
Read = Callable[[Tile], tuple[np.ndarray, np.ndarray]]


def with_mask(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill the hole of an image and append the mask as a channel: the input of a model for holes.

    (H, W, C) uint8 or uint16 -> (H, W, C + 1) of the same dtype. The mask is the dtype's maximum in the hole, else 0.
    An image that is all hole becomes mid grey.
    """
    height, width, channels = image.shape

    def read(window: Tile) -> tuple[np.ndarray, np.ndarray]:
        place = slice(window.top, window.bottom), slice(window.left, window.right)
        return image[place], hole[place]

    out = np.dstack([image, as_channel(hole, image.dtype)])
    filler = Fill(height, width, read)
    for window in squares(height, width) if hole.any() else ():
        out[window.top : window.bottom, window.left : window.right, :channels] = filler(window)
    return out


def as_channel(hole: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert (H, W) bool to an integer dtype: its maximum in the hole, 0 elsewhere."""
    return np.where(hole, np.iinfo(dtype).max, 0).astype(dtype)


def hole_of_mask(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Return the hole of a mask's image, (H, W, 1 or 3) uint8 or uint16: what is at least half white and opaque."""
    full = np.iinfo(pixels.dtype).max
    level = pixels.mean(axis=2, dtype=np.float32) * (1 if alpha is None else alpha / np.float32(full))
    return level >= full * WHITE / 255


def hole_of_colour(pixels: np.ndarray, colour: tuple[int, int, int], tolerance: int) -> np.ndarray:
    """Return the pixels of (H, W, 1 or 3) uint8 or uint16 that are within `tolerance` of a colour in each channel.

    Colour and tolerance are in levels of 255.
    """
    step = np.iinfo(pixels.dtype).max // 255
    wanted = np.array(colour, np.int32) * step
    return (np.abs(pixels.astype(np.int32) - wanted) <= tolerance * step).all(axis=2)


class Fill:
    """The fill of one image of height x width pixels, window by window; `read` gives its pixels and hole.

    `share` is the hole's share of the image's pixels, 0 to 1.
    """

    def __init__(self, height: int, width: int, read: Read):
        self._height, self._width, self._read = height, width, read
        self._coarse: np.ndarray | None = None
        strips, missing = [], 0
        rows = max(BLOCK, (1 << 20) // width // BLOCK * BLOCK)
        for top in range(0, height, rows):
            pixels, hole = read(Tile(top, 0, min(rows, height - top), width))
            strips.append(_pyramid(pixels, hole)[-1])
            missing += int(hole.sum())
        self.share = missing / (height * width)
        values, hole = (np.concatenate(parts) for parts in zip(*strips, strict=True))
        if not hole.all():
            self._coarse = _filled(values, hole)

    def __call__(self, window: Tile) -> np.ndarray:
        """Return the pixels of `window` with the hole filled: (height, width, C) of the image's dtype."""
        around = self._around(window)
        pixels, hole = self._read(around)
        place = (
            slice(window.top - around.top, window.bottom - around.top),
            slice(window.left - around.left, window.right - around.left),
        )
        if not hole[place].any():
            return pixels[place]
        if self._coarse is None:
            return np.full_like(pixels[place], np.iinfo(pixels.dtype).max // 2)
        *finer, (values, _) = _pyramid(pixels, hole)
        top, left = around.top // BLOCK, around.left // BLOCK
        filled = self._coarse[top : top + values.shape[0], left : left + values.shape[1]]
        for known, missing in reversed(finer):
            filled = _refined(filled, known, missing)
        made = np.floor(filled[place] + 0.5).astype(pixels.dtype)
        return np.where(hole[place][..., None], made, pixels[place])

    def _around(self, window: Tile) -> Tile:
        """Return the window with MARGIN around it, beginning on multiples of BLOCK."""
        top, left = (max(0, at - MARGIN) // BLOCK * BLOCK for at in (window.top, window.left))
        bottom, right = min(self._height, window.bottom + MARGIN), min(self._width, window.right + MARGIN)
        return Tile(top, left, bottom - top, right - left)


def _pyramid(pixels: np.ndarray, hole: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return LEVELS + 1 levels, the finest first: (H, W, C) float32 and its hole."""
    levels = [(pixels.astype(np.float32), hole)]
    for _ in range(LEVELS):
        levels.append(_half(*levels[-1]))
    return levels


def _filled(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Return (H, W, C) float32 with the pixels of `hole` replaced; at least one must be known."""
    return _refined(_filled(*_half(values, hole)), values, hole) if hole.any() else values


def _refined(coarse: np.ndarray, values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill a level from the filled coarser one of half its size."""
    if not hole.any():
        return values
    finer = twice(coarse)[: hole.shape[0], : hole.shape[1]]
    return _relaxed(np.where(hole[..., None], finer, values), hole)


def _half(values: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the known pixels of each 2 x 2, and where there is none."""
    known = (~hole).astype(np.float32)[..., None]
    total, count = halved(values * known), halved(known)
    return total / np.maximum(count, 1), count[..., 0] == 0


def _relaxed(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Replace each pixel of the hole by the mean of its four neighbours, SWEEPS times, edges repeated."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    width, flat = padded.shape[1], padded.reshape(-1, padded.shape[2])
    rows, columns = np.nonzero(hole)
    middle = (rows + 1) * width + columns + 1
    up = middle - width * (rows > 0)
    down = middle + width * (rows < hole.shape[0] - 1)
    left, right = middle - (columns > 0), middle + (columns < hole.shape[1] - 1)
    for _ in range(SWEEPS):
        flat[middle] = (flat[up] + flat[down] + flat[left] + flat[right]) * 0.25
    return padded[1:-1, 1:-1]
