"""Join tiles that need not agree where they overlap: each fades into its neighbours.

For models that draw noise (`ModelInfo.blended`). Everywhere the shares of the tiles add up to one, so that tiles that
do agree come out as they are.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from imgtx.imageops.geometry import Tile
from imgtx.inference.tiling import Plan


class Blender:
    """Takes the output tiles of one image in the order of its plan, and gives finished bands of the image.

    Memory holds one row of tiles as float32, however tall the image is.
    """

    def __init__(self, plan: Plan, scale: int):
        self._plan, self._scale = plan, scale
        self._rows = shares(plan.tops, plan.tile_height, plan.padded_height, scale)
        self._columns = shares(plan.lefts, plan.tile_width, plan.padded_width, scale)
        self._next = 0
        self._band: np.ndarray | None = None

    def add(self, tile: np.ndarray) -> Iterator[tuple[Tile, np.ndarray]]:
        """Add the next tile, (s th, s tw, C) uint8 or uint16; yield the band that is finished with it, if one is.

        A band is its place in the output, in output pixels, and its pixels in the tile's dtype. Over all tiles the
        bands partition the output.
        """
        plan, scale = self._plan, self._scale
        row, column = divmod(self._next, len(plan.lefts))
        self._next += 1
        if self._band is None:
            shape = (plan.tile_height * scale, plan.padded_width * scale, tile.shape[2])
            self._band = np.zeros(shape, np.float32)
        left = plan.lefts[column] * scale
        share = self._rows[row][:, None, None] * self._columns[column][None, :, None]
        self._band[:, left : left + plan.tile_width * scale] += tile * share
        if column + 1 < len(plan.lefts):
            return
        top = plan.tops[row]
        after = plan.tops[row + 1] if row + 1 < len(plan.tops) else plan.padded_height
        place = Tile(
            top * scale, 0, (min(after, plan.height) - min(top, plan.height)) * scale, plan.width * scale
        )
        done = self._band[: place.height, : place.width]
        if place.height:
            yield place, np.floor(done + 0.5).clip(0, np.iinfo(tile.dtype).max).astype(tile.dtype)
        # What reaches into the next row of tiles.
        rest = self._band[(after - top) * scale :].copy()
        self._band[:] = 0
        self._band[: len(rest)] = rest


def shares(origins: tuple[int, ...], length: int, whole: int, scale: int) -> list[np.ndarray]:
    """Return each tile's share along one axis: float32 of `scale` `length`, which rises and falls where tiles overlap.

    origins, length and whole (of the padded image) are in input pixels.
    """
    length, whole = length * scale, whole * scale
    starts = [origin * scale for origin in origins]
    weights = [np.ones(length, np.float64) for _ in starts]
    for number, (first, second) in enumerate(pairwise(starts)):
        overlap = first + length - second
        rise = (np.arange(overlap) + 0.5) / overlap
        weights[number][length - overlap :] *= rise[::-1]
        weights[number + 1][:overlap] *= rise
    total = np.zeros(whole, np.float64)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + length] += weight
    return [
        (weight / total[start : start + length]).astype(np.float32)
        for start, weight in zip(starts, weights, strict=True)
    ]


def blend(tiles: np.ndarray, plan: Plan, scale: int) -> np.ndarray:
    """Join (plan.count, s tile_height, s tile_width, C) to (s height, s width, C), as a `Blender` does."""
    image = np.empty((plan.height * scale, plan.width * scale, tiles.shape[3]), tiles.dtype)
    blender = Blender(plan, scale)
    for tile in tiles:
        for place, pixels in blender.add(tile):
            image[place.top : place.bottom, place.left : place.right] = pixels
    return image
