"""What a model learns of a whole image before it runs the tiles of it, in a few pieces at the image's own size."""

from collections.abc import Callable

import numpy as np

from imgtx.imageops.geometry import Tile
from imgtx.inference.tiling import plan, tile_of

# Sides of a piece in pixels, and pieces along one axis at most: nine of them tell as much of a photo as all its pixels.
PIECE = 256
MOST = 3


def pieces_of(
    height: int, width: int, multiple: int, read_window: Callable[[Tile], np.ndarray]
) -> np.ndarray:
    """Return evenly spread pieces of an image, (N, h, w, C): all of a small one, 9 of a large one.

    They depend on the image alone, never on how it is cut into tiles. read_window: as for `Predictor.tiles`.
    """
    side = max(PIECE // multiple, 1) * multiple
    cut = plan(height, width, tile=side, halo=0, multiple=multiple)
    chosen = [row * len(cut.lefts) + column for row in _spread(cut.tops) for column in _spread(cut.lefts)]
    return np.stack([tile_of(read_window(cut.window(index)), cut, index) for index in chosen])


def read_from(image: np.ndarray) -> Callable[[Tile], np.ndarray]:
    """Return what reads a window of an image in memory, (H, W, C)."""
    return lambda window: image[window.top : window.bottom, window.left : window.right]


def _spread(origins: tuple[int, ...]) -> list[int]:
    count = min(MOST, len(origins))
    return [(2 * index + 1) * len(origins) // (2 * count) for index in range(count)]
