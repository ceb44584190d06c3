"""Where an image is cut into tiles and how the results are joined: pure geometry on numpy arrays.

An image is padded at the bottom and right to the model's size multiple, then cut into tiles of one shape that
overlap by at least two halos. Each tile answers for its *core*; the cores partition the padded image exactly.
The tiles' origins are multiples of the model's multiple, because attention windows must be where they would be
in the uncut image: only then can tiled output equal untiled output.

Lengths are in input pixels unless a `scale` is applied. Images are (height, width, channels) of any dtype.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from imgtx.imageops.geometry import Tile
from imgtx.models.info import ModelInfo

# Recomputed halo, as a share of all pixels computed, that `default_tile` accepts.
MAX_HALO_SHARE = 0.15
# Sides `default_tile` chooses from: below, nothing is gained; above, the activations (about 1 kB per pixel in float32
# beside 200 MB) would not fit into the memory of one worker.
SMALLEST_DEFAULT, LARGEST_DEFAULT = 256, 1216
# For halos that would need even larger tiles: it cannot keep MAX_HALO_SHARE, and spares memory that foreign models,
# whose halos are such, need more of.
WIDE_HALO_DEFAULT = 1024


@dataclass(frozen=True)
class Plan:
    """How one image of `height` x `width` is cut; made by `plan`.

    `tops` and `lefts` are the origins of the grid's rows and columns; tiles are numbered row by row.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int
    halo: int
    multiple: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def padded_height(self) -> int:
        return round_up(self.height, self.multiple)

    @property
    def padded_width(self) -> int:
        return round_up(self.width, self.multiple)

    @property
    def count(self) -> int:
        return len(self.tops) * len(self.lefts)

    @property
    def overhead(self) -> float:
        """Pixels computed per pixel of the padded image, less one: the price of the halos."""
        computed = self.count * self.tile_height * self.tile_width
        return computed / (self.padded_height * self.padded_width) - 1

    @property
    def halo_share(self) -> float:
        """The part of all pixels computed that is computed for halos."""
        return self.overhead / (1 + self.overhead)

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        return tuple(
            Tile(t, left, self.tile_height, self.tile_width) for t in self.tops for left in self.lefts
        )

    @cached_property
    def cores(self) -> tuple[Tile, ...]:
        """For each tile the part of the padded image that is taken from it: an exact partition."""
        rows = _cuts(self.tops, self.tile_height, self.padded_height)
        columns = _cuts(self.lefts, self.tile_width, self.padded_width)
        return tuple(Tile(t, left, b - t, r - left) for t, b in rows for left, r in columns)

    def window(self, index: int) -> Tile:
        """Return the part of the image that tile number `index` is made of.

        It is the tile itself, but where that reaches into the padding: there it holds what is mirrored.
        """
        tile = self.tiles[index]
        top, bottom = _reflected_range(tile.top, tile.bottom, self.height)
        left, right = _reflected_range(tile.left, tile.right, self.width)
        return Tile(top, left, bottom - top, right - left)


def plan(height: int, width: int, *, tile: int | tuple[int, int], halo: int, multiple: int) -> Plan:
    """Cut an image of `height` x `width` pixels into tiles of at most `tile` pixels a side.

    `tile` may also be (height, width). An axis that fits into `tile` once padded is not cut. Origins are on
    multiples of `multiple`, so that a model's windows fall where they fall in the whole image; neighbours overlap by
    two halos, rounded up to `multiple`, and are cut in the middle of it. Tiles are made as small as their number
    allows, so that the last one is not mostly overlap.
    Raises ValueError for sizes below 1 and for a tile with no room beside its halos.
    """
    if height < 1 or width < 1:
        raise ValueError(
            f"image size {height} x {width}: both sides must be at least 1 pixel; drop empty images"
        )
    if halo < 0 or multiple < 1:
        raise ValueError(f"halo {halo} and multiple {multiple}: expected halo >= 0 and multiple >= 1")
    tile_limits = tile if isinstance(tile, tuple) else (tile, tile)
    overlap = round_up(2 * halo, multiple)
    for limit in tile_limits:
        if limit < overlap + multiple:
            raise ValueError(
                f"tile {limit} leaves no room between its two halos of {halo} pixels; "
                f"expected {overlap + multiple} or more; choose a larger tile"
            )
    tile_height, tops = _cut_axis(round_up(height, multiple), tile_limits[0], overlap, multiple)
    tile_width, lefts = _cut_axis(round_up(width, multiple), tile_limits[1], overlap, multiple)
    return Plan(height, width, tile_height, tile_width, halo, multiple, tops, lefts)


def plan_of_equal_tiles(height: int, width: int, *, tile: int, halo: int, multiple: int) -> Plan | None:
    """Plan square tiles of exactly `tile` pixels, a multiple of `multiple`; None for an image too small.

    Only the overlap of neighbours gives way: nothing is padded that `plan` would not pad.
    """
    padded = round_up(height, multiple), round_up(width, multiple)
    if min(padded) < tile:
        return None
    overlap = round_up(2 * halo, multiple)
    counts = (max(1, -(-(length - overlap) // (tile - overlap))) for length in padded)
    tops, lefts = (_spread(n, length, tile, multiple) for n, length in zip(counts, padded, strict=True))
    return Plan(height, width, tile, tile, halo, multiple, tops, lefts)


def default_tile(*, halo: int, multiple: int) -> int:
    """Return the smallest side at which halos stay below MAX_HALO_SHARE in images of 1 megapixel and more.

    Not below SMALLEST_DEFAULT; WIDE_HALO_DEFAULT where it would be above LARGEST_DEFAULT, as with halos beyond 40
    pixels.
    Along one axis an image of length L is cut into N tiles that compute less than 2 halo (N - 1) + multiple N
    pixels too many, and N - 1 < L / (tile - 2 halo).
    """
    overlap = round_up(2 * halo, multiple)
    per_axis = math.sqrt(1 / (1 - MAX_HALO_SHARE)) - 1
    side = round_up(math.ceil(overlap + (overlap + multiple) / per_axis), multiple)
    smallest = overlap + multiple
    if side > LARGEST_DEFAULT:
        side = WIDE_HALO_DEFAULT
    return max(round_up(max(side, SMALLEST_DEFAULT), multiple), smallest)


def smallest_tile(info: ModelInfo) -> int:
    """Floor of halving: the core is half of the tile's side, so that the work has grown fourfold."""
    return max(4 * round_up(info.halo, info.multiple), info.multiple)


def largest_tile(info: ModelInfo) -> int:
    """Return the longest side of a model's tiles: `default_tile`, or less if no more is known to fit into memory.

    Never so small that the halos leave less than half of the side: the work would grow more than fourfold.
    """
    side = default_tile(halo=info.halo, multiple=info.multiple)
    if not info.largest:
        return side
    floor = smallest_tile(info)
    return min(side, max(info.largest // info.multiple * info.multiple, floor))


def plan_for_model(info: ModelInfo, height: int, width: int) -> Plan:
    """Return the plan that a model's own facts ask for: decode cuts by it and transform joins by it.

    An image that `largest_tile` holds is not cut. Of a larger one the tiles are as small as MAX_HALO_SHARE allows,
    because a model's memory grows with them: it takes tiles near the largest for an image of a few tiles only.
    A compiled model (`info.compiled_tile`) runs fast in tiles of one size only. An image is cut into such where the
    pixels that they compute twice cost less than the model gains: not where it is smaller, or just larger, than one.
    A model that looks at the whole image (`info.untiled`) gets it in one.
    """
    if info.untiled:
        return plan(
            height, width, tile=round_up(max(height, width), info.multiple), halo=0, multiple=info.multiple
        )
    usual = _usual_plan(info, height, width)
    if info.compiled_tile:
        equal = plan_of_equal_tiles(
            height, width, tile=info.compiled_tile, halo=info.halo, multiple=info.multiple
        )
        if equal is not None and 1 + equal.overhead < info.compiled_gain * (1 + usual.overhead):
            return equal
    return usual


def _usual_plan(info: ModelInfo, height: int, width: int) -> Plan:
    facts = {"halo": info.halo, "multiple": info.multiple}
    largest = largest_tile(info)
    if max(round_up(height, info.multiple), round_up(width, info.multiple)) > largest:
        overlap = round_up(2 * info.halo, info.multiple)
        for side in range(max(SMALLEST_DEFAULT, overlap + info.multiple), largest, info.multiple):
            cut = plan(height, width, tile=side, **facts)
            if cut.halo_share <= MAX_HALO_SHARE:
                return cut
    return plan(height, width, tile=largest, **facts)


def split(image: np.ndarray, plan: Plan) -> np.ndarray:
    """(height, width, C) -> (plan.count, tile_height, tile_width, C), a new array.

    Padding mirrors the image at its last row and column; an axis of 1 pixel is repeated.
    """
    _check_size(image, plan.height, plan.width)
    tiles = np.empty((plan.count, plan.tile_height, plan.tile_width, image.shape[2]), image.dtype)
    for index in range(plan.count):
        window = plan.window(index)
        pixels = image[window.top : window.bottom, window.left : window.right]
        tiles[index] = tile_of(pixels, plan, index)
    return tiles


def merge(tiles: np.ndarray, plan: Plan, scale: int) -> np.ndarray:
    """Invert `split`: (plan.count, s tile_height, s tile_width, C) -> (s height, s width, C)."""
    image = np.empty((plan.height * scale, plan.width * scale, tiles.shape[3]), tiles.dtype)
    for index in range(plan.count):
        paste(image, tiles[index], plan, index, scale)
    return image


def tile_of(pixels: np.ndarray, plan: Plan, index: int) -> np.ndarray:
    """Input tile number `index` from the pixels of `plan.window(index)` alone: (tile_height, tile_width, C).

    May be `pixels` itself. `split` makes every tile so.
    """
    tile, window = plan.tiles[index], plan.window(index)
    _check_size(pixels, window.height, window.width)
    if (window.top, window.height) != (tile.top, tile.height):
        pixels = pixels.take(_reflect(tile.top, tile.bottom, plan.height) - window.top, axis=0)
    if (window.left, window.width) != (tile.left, tile.width):
        pixels = pixels.take(_reflect(tile.left, tile.right, plan.width) - window.left, axis=1)
    return pixels


def placed(conditions: Mapping[str, Any], cut: Plan, index: int) -> Mapping[str, Any]:
    """Return the conditions of tile number `index`: those of what is cut, and `top` and `left`, its place in the image.

    For models that draw noise by place. What is cut may itself be a tile, whose place its conditions name.
    """
    tile = cut.tiles[index]
    top, left = conditions.get("top", 0) + tile.top, conditions.get("left", 0) + tile.left
    return {**conditions, "top": top, "left": left}


def core_of(tile: np.ndarray, plan: Plan, index: int, scale: int) -> tuple[Tile, np.ndarray]:
    """Return the place in the output of tile number `index`, and its core: a view without padding.

    `merge` is made of these: over all tiles the places partition the output.
    """
    origin, core = plan.tiles[index], plan.cores[index]
    bottom, right = min(core.bottom, plan.height), min(core.right, plan.width)
    place = Tile(
        core.top * scale, core.left * scale, (bottom - core.top) * scale, (right - core.left) * scale
    )
    return place, tile[
        (core.top - origin.top) * scale : (bottom - origin.top) * scale,
        (core.left - origin.left) * scale : (right - origin.left) * scale,
    ]


def paste(canvas: np.ndarray, tile: np.ndarray, plan: Plan, index: int, scale: int) -> None:
    """Write the core of output tile number `index` into `canvas`, the whole output."""
    place, core = core_of(tile, plan, index, scale)
    canvas[place.top : place.bottom, place.left : place.right] = core


def _cut_axis(length: int, tile: int, overlap: int, multiple: int) -> tuple[int, tuple[int, ...]]:
    """Return the tile's length along one axis and the tiles' origins; `length` is a multiple of `multiple`."""
    if length <= tile:
        return length, (0,)
    largest_step = tile // multiple * multiple - overlap
    count = -(-(length - overlap) // largest_step)
    tile = round_up(-(-(length - overlap) // count), multiple) + overlap
    return tile, _spread(count, length, tile, multiple)


def _spread(count: int, length: int, tile: int, multiple: int) -> tuple[int, ...]:
    """Return evenly spaced origins; steps stay within tile - overlap, because that is a multiple too."""
    slack = (length - tile) // multiple
    return tuple(i * slack // max(1, count - 1) * multiple for i in range(count))


def _cuts(origins: tuple[int, ...], tile: int, length: int) -> list[tuple[int, int]]:
    """Return start and stop of each core along one axis; cuts are mid-overlap, where context is widest."""
    middles = [(first + tile + second) // 2 for first, second in pairwise(origins)]
    return list(zip([0, *middles], [*middles, length], strict=True))


def _reflect(start: int, stop: int, size: int) -> np.ndarray:
    """Return which of `size` positions is at start..stop when they are mirrored, the last one not repeated."""
    if size == 1:
        return np.zeros(stop - start, np.intp)
    positions = np.arange(start, stop) % (2 * size - 2)
    return np.minimum(positions, 2 * size - 2 - positions)


def _reflected_range(start: int, stop: int, size: int) -> tuple[int, int]:
    """Return first and last plus one of the positions that `_reflect` names: all between are named too."""
    positions = _reflect(start, stop, size)
    return int(positions.min()), int(positions.max()) + 1


def _check_size(image: np.ndarray, height: int, width: int) -> None:
    if image.ndim != 3 or image.shape[:2] != (height, width):
        raise ValueError(
            f"array of shape {image.shape}, but the plan cuts ({height}, {width}, channels): "
            "make the plan from the array's own height and width"
        )


def round_up(length: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `length`."""
    return -(-length // multiple) * multiple
