"""Scenes drawn: a description becomes shapes with places, and those a picture. All by the given generator."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from imgtx.training.scenes.description import COLOURS, POSITIONS, SHAPES, Description, Group, far_apart

SIDE = 64
# Each pixel is the mean of this many squared.
SUPERSAMPLING = 4
# Half a shape's width in pixels, where nothing, "small" and "large" are said, for a shape alone and for one of two.
RADII = {"": (9.0, 21.0), "small": (6.0, 9.0), "large": (18.0, 25.0)}
RADII_OF_TWO = {"": (8.0, 13.0), "small": (5.0, 7.0), "large": (13.0, 15.0)}
RADII_OF_COUNT = {2: (7.0, 13.0), 3: (6.0, 10.5), 4: (6.0, 9.0), 5: (5.5, 8.0)}
# The same where the size of several shapes is said.
SMALL_OF_COUNT = (4.5, 6.0)
LARGE_OF_COUNT = {2: (12.0, 14.5), 3: (10.0, 12.0), 4: (9.0, 11.0), 5: (8.0, 9.5)}
# Pixels between shapes, and between a shape and the edge.
GAP, MARGIN = 3.0, 2.0
# Colours vary by this many levels, angles by this many degrees.
COLOUR_JITTER, ANGLE_JITTER = 12, 6.0


@dataclass(frozen=True)
class Placed:
    """A shape in a picture: centre and radius in pixels, angle in degrees, colour in levels of 255."""

    shape: str
    x: float
    y: float
    radius: float
    angle: float
    colour: tuple[int, int, int]


def draw(description: Description, rng: np.random.Generator) -> np.ndarray:
    """Draw a picture that the description is true of: (64, 64, 3) uint8. What is not said is drawn at random."""
    used = [group.colour for group in description.groups]
    name = description.background
    if not name:
        fitting = [c for c in COLOURS if all(far_apart(c, other) for other in used)]
        name = "white" if "white" in fitting and rng.random() < 0.6 else str(rng.choice(fitting))
    return render(place(description, rng), _jittered(name, rng))


def place(description: Description, rng: np.random.Generator) -> list[Placed]:
    """Give every shape of the description a place; shapes do not touch."""
    # Rarely no place is left: then all are placed anew.
    while True:
        found = _try_to_place(description, rng)
        if found is not None:
            return found


def _try_to_place(description: Description, rng: np.random.Generator) -> list[Placed] | None:
    placed: list[Placed] = []
    groups = description.groups
    for group in groups:
        colour, low_high = _jittered(group.colour, rng), _radii(group, len(groups))
        radius = rng.uniform(*low_high)
        for _ in range(group.count):
            for _ in range(60):
                # Shapes of one group are about of one size.
                own = float(radius * rng.uniform(0.93, 1.07)) if group.count > 1 else float(radius)
                x, y = _centre(description, own, placed, rng)
                angle = float(rng.uniform(-ANGLE_JITTER, ANGLE_JITTER))
                candidate = Placed(group.shape, x, y, own, angle, colour)
                if _fits(candidate, placed) and _keeps(description, candidate, placed):
                    placed.append(candidate)
                    break
            else:
                return None
    return placed


def _radii(group: Group, groups: int) -> tuple[float, float]:
    if group.count > 1:
        if group.size:
            return SMALL_OF_COUNT if group.size == "small" else LARGE_OF_COUNT[group.count]
        return RADII_OF_COUNT[group.count]
    return (RADII if groups == 1 else RADII_OF_TWO)[group.size]


def _centre(
    description: Description, radius: float, placed: list[Placed], rng: np.random.Generator
) -> tuple[float, float]:
    low, high = radius + MARGIN, SIDE - radius - MARGIN
    if description.position and not placed:
        row, column = POSITIONS[description.position]
        return _third(column, low, high, rng), _third(row, low, high, rng)
    x, y = rng.uniform(low, high), rng.uniform(low, high)
    if description.relation and placed:
        # The second is placed beside the first, about in line.
        first = placed[0]
        if description.relation in ("above", "below"):
            x = np.clip(first.x + rng.uniform(-0.6, 0.6) * first.radius, low, high)
        else:
            y = np.clip(first.y + rng.uniform(-0.6, 0.6) * first.radius, low, high)
    return float(x), float(y)


def _third(number: int, low: float, high: float, rng: np.random.Generator) -> float:
    """Return a coordinate in the first, second or last third; a large shape has little choice."""
    middle, room = (low + high) / 2, (high - low) / 2
    if number == 1:
        return float(middle + rng.uniform(-0.2, 0.2) * room)
    return float(middle + (number - 1) * rng.uniform(0.65, 1.0) * room)


def _fits(candidate: Placed, placed: list[Placed]) -> bool:
    # Squares reach further along the diagonal, but boxes that keep a gap on one axis never touch.
    for other in placed:
        reach = candidate.radius + other.radius + GAP
        if max(abs(candidate.x - other.x), abs(candidate.y - other.y)) < reach:
            return False
    return True


def _keeps(description: Description, candidate: Placed, placed: list[Placed]) -> bool:
    """Return whether the relation holds between the first shape and this one."""
    if not description.relation or not placed:
        return True
    first, reach = placed[0], placed[0].radius + candidate.radius + GAP
    return {
        "above": candidate.y - first.y,
        "below": first.y - candidate.y,
        "left of": candidate.x - first.x,
        "right of": first.x - candidate.x,
    }[description.relation] >= reach


def _jittered(name: str, rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = (
        int(np.clip(level + rng.integers(-COLOUR_JITTER, COLOUR_JITTER + 1), 0, 255))
        for level in COLOURS[name]
    )
    return r, g, b


def render(shapes: list[Placed], background: tuple[int, int, int]) -> np.ndarray:
    """Draw shapes on a plain background: (64, 64, 3) uint8."""
    picture = Image.new("RGB", (SIDE * SUPERSAMPLING, SIDE * SUPERSAMPLING), background)
    pen = ImageDraw.Draw(picture)
    for shape in shapes:
        pen.polygon(_corners(shape, OUTLINES[shape.shape]), fill=shape.colour)
        if shape.shape == "ring":
            pen.polygon(_corners(shape, 0.55 * OUTLINES["circle"]), fill=background)
    return np.asarray(picture.reduce(SUPERSAMPLING))


def _corners(shape: Placed, outline: np.ndarray) -> list[tuple[float, float]]:
    turn = math.radians(shape.angle)
    cosine, sine = math.cos(turn), math.sin(turn)
    points = shape.radius * outline @ np.array([[cosine, sine], [-sine, cosine]]) + (shape.x, shape.y)
    return [(float(x), float(y)) for x, y in points * SUPERSAMPLING - 0.5]


def _outline(shape: str) -> np.ndarray:
    """Return the corners (N, 2) of a shape between -1 and 1, y downwards."""
    around = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = np.stack([np.cos(around), np.sin(around)], 1)
    match shape:
        case "circle" | "ring":
            return circle
        case "square":
            return np.array([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)])
        case "diamond":
            return np.array([(0, -1), (0.8, 0), (0, 1), (-0.8, 0)])
        case "triangle":
            return np.array([(0, -0.95), (1, 0.85), (-1, 0.85)])
        case "star":
            points = np.arange(10) * np.pi / 5 - np.pi / 2
            reach = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
            return np.stack([reach * np.cos(points), reach * np.sin(points)], 1)
        case "cross":
            w = 0.34
            return np.array([
                (-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w),
                (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w),
            ])  # fmt: skip
        case "heart":
            x = 16 * np.sin(around) ** 3
            y = 13 * np.cos(around) - 5 * np.cos(2 * around) - 2 * np.cos(3 * around) - np.cos(4 * around)
            return np.stack([x / 16, -(y + 2.5) / 15], 1)
    raise AssertionError(shape)


OUTLINES = {shape: _outline(shape) for shape in SHAPES}
