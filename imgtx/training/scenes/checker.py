"""A program that sees whether a picture shows what a description says: shapes, colours, number, size, place, relation.

Frozen before any network was trained on the scenes, and tested on renderings of the truth, blurred and noisy, beside
wrong descriptions (`tests/imgtx/training/scenes/test_checker.py`). It knows plain backgrounds and the shapes of
`imgtx.training.scenes` only: what differs from the background falls into connected pieces; a piece's colour is the
nearest of the twelve, and its shape is the one of the eight which, drawn with the same area and centre, covers it best.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np

from imgtx.training.scenes.description import COLOURS, POSITIONS, SHAPES, Description, Group
from imgtx.training.scenes.drawing import (
    LARGE_OF_COUNT,
    MARGIN,
    RADII,
    RADII_OF_TWO,
    SIDE,
    SMALL_OF_COUNT,
    Placed,
    render,
)

# What may be judged, in this order.
ATTRIBUTES = ("count", "colour", "shape", "pairing", "size", "position", "relation", "background")
# Levels that a pixel of a piece differs from the background at least, and pixels that a piece has at least.
LEAST_DIFFERENCE, LEAST_AREA = 38.0, 9
# A piece that no shape covers better than this, as intersection over union, has no shape.
LEAST_COVER = 0.6
# How much of its colour the purest pixels of a thin, blurred piece keep.
LEAST_OPACITY = 0.7
# Degrees that shapes are turned by to compare them.
ANGLES = (-5.0, 0.0, 5.0)
# In the middle third of the places that a shape of its size has: up to this share of the way to the edge.
MIDDLE = 0.42


@dataclass(frozen=True)
class Piece:
    """Something found in a picture. `shape` is "" where it looks like none; centre and radius are in pixels."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    cover: float


def judge(picture: np.ndarray, description: Description) -> dict[str, bool]:
    """Return for each attribute that the description speaks of whether (64, 64, 3) uint8 shows it.

    count, colour, shape: of all pieces together; pairing: that colours and shapes belong together as said. An attribute
    of a shape that is not there is wrong.
    """
    pieces, background = find_pieces(picture)
    groups = description.groups
    wanted = [group for group in groups for _ in range(group.count)]
    verdict = {
        "count": len(pieces) == len(wanted),
        "colour": Counter(p.colour for p in pieces) == Counter(g.colour for g in wanted),
        "shape": Counter(p.shape for p in pieces) == Counter(g.shape for g in wanted),
        "pairing": Counter((p.colour, p.shape) for p in pieces)
        == Counter((g.colour, g.shape) for g in wanted),
    }
    members = [[p for p in pieces if (p.colour, p.shape) == (g.colour, g.shape)] for g in groups]
    if any(group.size for group in groups):
        verdict["size"] = all(
            bool(found) and all(_has_size(p, group, len(groups)) for p in found)
            for group, found in zip(groups, members, strict=True)
            if group.size
        )
    if description.position:
        verdict["position"] = bool(members[0]) and _cell(members[0][0]) == POSITIONS[description.position]
    if description.relation:
        first, second = members
        verdict["relation"] = bool(first and second and _related(first[0], second[0], description.relation))
    if description.background:
        verdict["background"] = nearest_colour(background) == description.background
    return verdict


def find_pieces(picture: np.ndarray) -> tuple[list[Piece], np.ndarray]:
    """Return what differs from the plain background of (64, 64, 3) uint8, and the background's colour."""
    pixels = _smooth(picture.astype(np.float32))
    edge = np.concatenate(
        [pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3), *pixels[2:-2, [0, 1, -2, -1]]]
    )
    background = np.median(edge, axis=0)
    distance = np.linalg.norm(pixels - background, axis=-1)
    masks = [mask for mask in _components(distance > LEAST_DIFFERENCE) if mask.sum() >= LEAST_AREA]
    return [_piece(pixels, distance, mask, background) for mask in masks], background


def nearest_colour(colour: np.ndarray) -> str:
    """Return the name of the nearest of the twelve colours."""
    return min(COLOURS, key=lambda name: float(np.sum((colour - np.array(COLOURS[name])) ** 2)))


def _smooth(pixels: np.ndarray) -> np.ndarray:
    """Average each pixel with its neighbours, weighted 1 2 1 in both directions: less noise, little blur."""
    for axis in (0, 1):
        padded = np.pad(pixels, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        ahead = [np.take(padded, np.arange(SIDE) + i, axis) for i in range(3)]
        pixels = (ahead[0] + 2 * ahead[1] + ahead[2]) / 4
    return pixels


def _components(mask: np.ndarray) -> list[np.ndarray]:
    """Split a boolean mask into connected pieces; pixels that share an edge belong together."""
    left, found = mask.copy(), []
    for start in np.argwhere(mask):
        if not left[tuple(start)]:
            continue
        piece, stack = np.zeros_like(mask), [(int(start[0]), int(start[1]))]
        left[stack[0]] = False
        while stack:
            y, x = stack.pop()
            piece[y, x] = True
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= near[0] < SIDE and 0 <= near[1] < SIDE and left[near]:
                    left[near] = False
                    stack.append(near)
        found.append(piece)
    return found


def _piece(pixels: np.ndarray, distance: np.ndarray, mask: np.ndarray, background: np.ndarray) -> Piece:
    far = distance[mask]
    purest = pixels[mask & (distance >= np.quantile(far, 0.75))]
    core = np.median(purest, axis=0)
    # How opaque each pixel is: 0 background, 1 the piece's colour. Its half is where the outline was before blur.
    axis = core - background
    opacity = ((pixels - background) @ axis / max(float(axis @ axis), 1.0)).clip(0, 1)
    opacity *= _grown(mask)
    opacity[opacity < 0.15] = 0
    area = float(opacity.sum())
    rows, columns = np.indices(opacity.shape)
    y, x = float((rows * opacity).sum() / area), float((columns * opacity).sum() / area)
    covers = {shape: _cover(shape, x, y, area, opacity) for shape in SHAPES}
    shape = max(covers, key=lambda name: covers[name][0])
    cover, radius, centre = covers[shape]
    return Piece(
        _unmixed(core, background), shape if cover >= LEAST_COVER else "", centre[0], centre[1], radius, cover
    )


def _grown(mask: np.ndarray) -> np.ndarray:
    """Return the mask and the pixels beside it: blurred edges belong to a piece."""
    padded = np.pad(mask, 1)
    return padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:] | mask


def _unmixed(core: np.ndarray, background: np.ndarray) -> str:
    """Return the colour that gives `core` over the background, opaque or nearly so."""

    def error(name: str) -> float:
        axis = np.array(COLOURS[name]) - background
        opacity = float(np.clip((core - background) @ axis / max(float(axis @ axis), 1.0), LEAST_OPACITY, 1))
        # Among colours that fit, the one that needs less mixing.
        return float(np.linalg.norm(core - background - opacity * axis)) + 40 * (1 - opacity)

    return min(COLOURS, key=error)


def _cover(
    shape: str, x: float, y: float, area: float, opacity: np.ndarray
) -> tuple[float, float, tuple[float, float]]:
    """Return how well the shape, with this area and centroid, covers `opacity`; its radius and its centre."""
    unit_area, offset_x, offset_y = _unit(shape)
    radius = (area / unit_area) ** 0.5
    centre = (x - offset_x * radius, y - offset_y * radius)
    best = 0.0
    for angle in ANGLES:
        drawn = render(
            [Placed(shape, centre[0] + 0.5, centre[1] + 0.5, radius, angle, (255, 255, 255))], (0, 0, 0)
        )
        own = _smooth(drawn.astype(np.float32))[..., 0] / 255
        own[own < 0.15] = 0
        best = max(best, float(np.minimum(own, opacity).sum() / np.maximum(own, opacity).sum()))
    return best, radius, centre


@cache
def _unit(shape: str) -> tuple[float, float, float]:
    """Return area and centroid of a shape of radius 1, relative to its centre; measured on a large drawing."""
    radius, middle = 28.0, SIDE / 2
    mask = render([Placed(shape, middle, middle, radius, 0.0, (255, 255, 255))], (0, 0, 0))[..., 0] / 255
    rows, columns = np.indices(mask.shape) + 0.5
    area = float(mask.sum())
    x, y = float((columns * mask).sum() / area), float((rows * mask).sum() / area)
    return area / radius**2, (x - middle) / radius, (y - middle) / radius


def _has_size(piece: Piece, group: Group, groups: int) -> bool:
    """Return whether the size is nearer to what is said than to what is drawn where nothing is said."""
    if group.count > 1:
        limit = SMALL_OF_COUNT[1] + 0.7 if group.size == "small" else LARGE_OF_COUNT[group.count][0] - 0.7
    else:
        radii = RADII if groups == 1 else RADII_OF_TWO
        limit = radii["small"][1] + 1 if group.size == "small" else radii["large"][0] - 1
    return piece.radius <= limit if group.size == "small" else piece.radius >= limit


def _cell(piece: Piece) -> tuple[int, int]:
    """Return row and column, 0 to 2, among the places that a shape of this radius has."""
    room = max(SIDE / 2 - piece.radius - MARGIN, 4.0)

    def third(at: float) -> int:
        share = (at + 0.5 - SIDE / 2) / room
        return 1 if abs(share) < MIDDLE else 0 if share < 0 else 2

    return third(piece.y), third(piece.x)


def _related(first: Piece, second: Piece, relation: str) -> bool:
    across, down = second.x - first.x, second.y - first.y
    along, beside = {
        "above": (down, across), "below": (-down, across), "left of": (across, down), "right of": (-across, down),
    }[relation]  # fmt: skip
    return along > 0.7 * (first.radius + second.radius) and along > abs(beside)
