"""Colours that nobody sees: those under transparent pixels, replaced by the visible colours around them (numpy only).

A model mixes neighbours. Colours hidden under transparent pixels, which programs leave black, white or undefined, would
come out as a rim around what is visible. So a model sees each pixel's own colour as far as the pixel counts, and else
the mean colour of its neighbourhood, weighted by alpha: of 2 x 2 pixels, or 4 x 4 where these count too little, and so
on (pull and push: Gortler et al., "The lumigraph", SIGGRAPH 1996). A neighbourhood counts fully from a total alpha of
`ENOUGH` pixels on, so faint pictures keep their own colours, and no pixel moves by more than 8 of 255 levels as
displayed.

The result is that of the whole image, however it is cut into tiles afterwards. Of an image too large for memory only a
coarse level is held whole.

Shape legend: H and W pixels, C channels; alpha is (H, W), 0 transparent.
"""

import zlib
from collections.abc import Callable

import numpy as np

from imgtx.imageops.geometry import Tile, squares
from imgtx.imageops.pyramid import halved, twice

# The sum of alpha, in opaque pixels, from which the colours of a neighbourhood stand for themselves.
ENOUGH = 1 / 8
# The levels that a window computes itself; the coarser ones are computed once for the image.
LEVELS = 4
BLOCK = 2**LEVELS
# Pixels around a window that its own levels reach: one pixel of each coarser level.
MARGIN = 2 * BLOCK

# From a rectangle of the image to its pixels (height, width, C) and alpha (height, width), integers of one dtype.
Read = Callable[[Tile], tuple[np.ndarray, np.ndarray]]


def weights_of(alpha: np.ndarray | None, hole: np.ndarray | None) -> np.ndarray | None:
    """Return what the colours of an image count by, (H, W): its alpha, and 0 in a hole (bool). None where all count."""
    if hole is None:
        return alpha
    return np.where(hole, 0, np.uint8(255) if alpha is None else alpha).astype(
        np.uint8 if alpha is None else alpha.dtype
    )


def without_hidden_colours(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Return the colours that a model is given for an image: (H, W, C) uint8 or uint16, of the same dtype.

    May be `pixels` itself: without alpha, and where every pixel is visible, or none.
    """
    if alpha is None or not _is_faint(alpha).any():
        return pixels

    def read(window: Tile) -> tuple[np.ndarray, np.ndarray]:
        place = slice(window.top, window.bottom), slice(window.left, window.right)
        return pixels[place], alpha[place]

    height, width = alpha.shape
    visible = VisibleColours(height, width, read)
    out = np.empty_like(pixels)
    for window in squares(height, width):
        out[window.top : window.bottom, window.left : window.right] = visible(window)
    return out


def hidden_part(pixels: np.ndarray, shown: np.ndarray, hole: np.ndarray) -> bytes:
    """Return what `with_hidden_part` needs to turn the shown colours back outside the hole; b"" if nothing changed.

    pixels and shown: (H, W, C) before and after `without_hidden_colours`. hole: (H, W) bool.
    """
    if shown is pixels:
        return b""
    change = np.where(hole[..., None], 0, pixels ^ shown).astype(pixels.dtype)
    return zlib.compress(change.tobytes(), 1) if change.any() else b""


def with_hidden_part(pixels: np.ndarray, packed: bytes) -> np.ndarray:
    """Return (H, W, C) with the hidden colours that `hidden_part` packed, if any."""
    if not packed:
        return pixels
    return pixels ^ np.frombuffer(zlib.decompress(packed), pixels.dtype).reshape(pixels.shape)


class VisibleColours:
    """The colours of one image of height x width pixels that a model is given, window by window.

    `read` gives its pixels and alpha.
    """

    def __init__(self, height: int, width: int, read: Read):
        self._height, self._width, self._read = height, width, read
        rows = max(BLOCK, (1 << 20) // width // BLOCK * BLOCK)
        strips = [
            _pyramid(*read(Tile(top, 0, min(rows, height - top), width)))[-1]
            for top in range(0, height, rows)
        ]
        colours, weights = (np.concatenate(parts) for parts in zip(*strips, strict=True))
        # None where nothing is visible at all.
        self._coarse = _whole(colours, weights) if weights.any() else None

    def __call__(self, window: Tile) -> np.ndarray:
        """Return the pixels of `window` without hidden colours: (height, width, C) of the image's dtype."""
        pixels, alpha = self._read(window)
        if self._coarse is None or not _is_faint(alpha).any():
            return pixels
        around = self._around(window)
        *finer, (colours, _) = _pyramid(*self._read(around))
        top, left = around.top // BLOCK, around.left // BLOCK
        shown = self._coarse[top : top + colours.shape[0], left : left + colours.shape[1]]
        for colours, weights in reversed(finer):
            shown = _blended(shown, colours, weights)
        place = (
            slice(window.top - around.top, window.bottom - around.top),
            slice(window.left - around.left, window.right - around.left),
        )
        made = np.floor(shown[place] + 0.5).astype(pixels.dtype)
        return np.where(_is_faint(alpha)[..., None], made, pixels)

    def _around(self, window: Tile) -> Tile:
        """Return the window with MARGIN around it, beginning on multiples of BLOCK."""
        top, left = (max(0, at - MARGIN) // BLOCK * BLOCK for at in (window.top, window.left))
        bottom, right = min(self._height, window.bottom + MARGIN), min(self._width, window.right + MARGIN)
        return Tile(top, left, bottom - top, right - left)


def _is_faint(alpha: np.ndarray) -> np.ndarray:
    """Return which pixels count too little to stand for themselves."""
    return alpha < np.iinfo(alpha.dtype).max * ENOUGH


def _pyramid(pixels: np.ndarray, alpha: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return LEVELS + 1 levels, the finest first: sums of alpha times colour (H, W, C) and of alpha (H, W, 1), float32.

    Alpha is 1 for an opaque pixel.
    """
    weights = (alpha / np.float32(np.iinfo(alpha.dtype).max)).astype(np.float32)[..., None]
    levels = [(pixels * weights, weights)]
    for _ in range(LEVELS):
        colours, weights = levels[-1]
        levels.append((halved(colours), halved(weights)))
    return levels


def _whole(colours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the colours (H, W, C) of a level from it and all coarser ones."""
    if weights.size == 1:
        return colours / weights
    return _blended(_whole(halved(colours), halved(weights)), colours, weights)


def _blended(coarse: np.ndarray, colours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the colours of a level: its own as far as they count, and those of the coarser level of half its size."""
    own = colours / np.maximum(weights, np.finfo(np.float32).tiny)
    share = np.minimum(weights / np.float32(ENOUGH), 1)
    return own * share + twice(coarse)[: colours.shape[0], : colours.shape[1]] * (1 - share)
