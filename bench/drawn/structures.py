"""Panels of regular structures in perspective: facades, fences, floors."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from bench.drawn.artist import Artist
from bench.drawn.tools import (
    BLACK,
    PANEL,
    WHITE,
    Colour,
    Point,
    any_colour,
    gradient,
    greyish,
    mixed,
    paste_in_perspective,
    shaded,
    tiled,
    wobbly,
)  # fmt: skip

Box = tuple[float, float, float, float]

WALL, WALL_SCALE = PANEL * 3 // 2, 2  # pixels a side of a wall; how many times too large it is drawn


@dataclass(frozen=True)
class Windows:
    """How a wall's windows are built; sizes in pixels of the large drawing."""

    wide: float
    high: float
    frame: float
    bars: tuple[int, int]  # upright and level ones that divide the glass
    ink: Colour  # of frames and bars
    stone: Colour
    sill: bool
    blinds: bool


def facade(artist: Artist, rng: np.random.Generator) -> Image.Image:
    """Walls of windows seen in perspective, sky or a photo behind them."""
    panel = artist.photo(rng) if rng.random() < 0.5 else gradient(rng, PANEL)
    for _ in range(int(rng.integers(1, 4))):
        made = wall(rng)
        paste_in_perspective(panel, made, leaning(rng), rng, shade=True)
    return panel


def wall(rng: np.random.Generator) -> Image.Image:
    """Windows in rows and columns, all built alike, each with its own glass."""
    size = WALL * WALL_SCALE
    columns, rows = int(rng.integers(4, 30)), int(rng.integers(4, 30))
    stone = any_colour(rng) if rng.random() < 0.4 else greyish(rng, 60, 235)
    made = Image.new("RGB", (size, size), stone)
    draw = ImageDraw.Draw(made)
    if rng.random() < 0.3:
        bricks(draw, size, float(rng.uniform(8, 26)), stone, rng)
    step_x, step_y = size / columns, size / rows
    built = build(step_x, step_y, stone, rng)
    floors, pillars = rng.random() < 0.4, rng.random() < 0.3
    glass = [greyish(rng, 10, 120) for _ in range(3)] + [greyish(rng, 100, 230)]
    for row in range(rows):
        if floors:
            y = row * step_y
            draw.rectangle((0, y, size, y + built.frame), mixed(stone, built.ink, 0.5))
        for column in range(columns):
            place = (column * step_x + (step_x - built.wide) / 2, row * step_y + (step_y - built.high) / 2)
            window(draw, built, place, glass, rng)
    if pillars:
        for column in range(columns + 1):
            x = column * step_x
            draw.rectangle((x - built.frame, 0, x + built.frame, size), mixed(stone, WHITE, 0.3))
    return made.reduce(WALL_SCALE)


def build(step_x: float, step_y: float, stone: Colour, rng: np.random.Generator) -> Windows:
    wide, high = step_x * rng.uniform(0.4, 0.95), step_y * rng.uniform(0.35, 0.95)
    frame = max(1.0, min(wide, high) * float(rng.uniform(0.02, 0.12)))
    bars = (int(rng.integers(0, 4)), int(rng.integers(0, 4)))
    ink = greyish(rng, 10, 250)
    return Windows(wide, high, frame, bars, ink, stone, sill=rng.random() < 0.4, blinds=rng.random() < 0.4)


def window(
    draw: ImageDraw.ImageDraw, built: Windows, place: Point, glass: list[Colour], rng: np.random.Generator
) -> None:
    x, y = place
    frame, right, bottom = built.frame, x + built.wide, y + built.high
    pane = glass[int(rng.integers(4))]
    draw.rectangle((x, y, right, bottom), built.ink)
    inner = (x + frame, y + frame, right - frame, bottom - frame)
    if inner[2] <= inner[0] or inner[3] <= inner[1]:
        return
    draw.rectangle(inner, mixed(pane, any_colour(rng), 0.1))
    look_through(draw, inner, pane, built, rng)
    upright, level = built.bars
    for bar in range(upright):
        middle = inner[0] + (inner[2] - inner[0]) * (bar + 1) / (upright + 1)
        draw.rectangle((middle - frame / 2, inner[1], middle + frame / 2, inner[3]), built.ink)
    for bar in range(level):
        middle = inner[1] + (inner[3] - inner[1]) * (bar + 1) / (level + 1)
        draw.rectangle((inner[0], middle - frame / 2, inner[2], middle + frame / 2), built.ink)
    if built.sill:
        draw.rectangle((x - frame, bottom, right + frame, bottom + 2 * frame), mixed(built.stone, BLACK, 0.4))


def look_through(
    draw: ImageDraw.ImageDraw, inner: Box, pane: Colour, built: Windows, rng: np.random.Generator
) -> None:
    """What is seen in the glass: something bright aslant, blinds."""
    left, top, right, bottom = inner
    if rng.random() < 0.35:
        cut = top + (bottom - top) * rng.uniform(0.2, 0.8)
        corners = [(left, top), (right, top), (right, cut * 0.5 + top * 0.5), (left, cut)]
        draw.polygon(corners, mixed(pane, WHITE, float(rng.uniform(0.05, 0.4))))
    if built.blinds and rng.random() < 0.5:
        y, gap = top, max(3.0, (bottom - top) / 9)
        stop = top + (bottom - top) * rng.uniform(0.2, 1)
        while y < stop:
            draw.rectangle((left, y, right, min(y + gap / 2, bottom)), mixed(pane, built.stone, 0.7))
            y += gap


def fence(artist: Artist, rng: np.random.Generator) -> Image.Image:
    """Bars, wires, slats or a lattice before a photo, seen at an angle."""
    panel = artist.photo(rng)
    size = PANEL * 2
    mask = Image.new("L", (size, size))
    step = float(np.exp(rng.uniform(np.log(10), np.log(90))))
    width = max(1.5, step * float(rng.uniform(0.08, 0.5)))
    angles = [0.0] if rng.random() < 0.5 else [0.0, 90.0] if rng.random() < 0.4 else [-45.0, 45.0]
    for angle in angles:
        layer = Image.new("L", (size, size))
        stripes(ImageDraw.Draw(layer), size, step, width)
        mask = ImageChops.lighter(mask, layer.rotate(angle, Image.Resampling.BICUBIC) if angle else layer)
    draw = ImageDraw.Draw(mask)
    for _ in range(int(rng.integers(0, 4))):  # rails
        y = float(rng.uniform(0, size))
        draw.rectangle((0, y, size, y + 2 * width), 255)
    ink = greyish(rng, 5, 250) if rng.random() < 0.7 else any_colour(rng)
    surface = shaded(Image.new("RGB", (size, size), ink), rng)
    straight: list[Point] = [(0, 0), (PANEL, 0), (PANEL, PANEL), (0, PANEL)]
    corners = wobbly(rng, (size, size), whole=True) if rng.random() < 0.8 else straight
    paste_in_perspective(panel, surface, corners, rng, mask=mask)
    return panel


def stripes(draw: ImageDraw.ImageDraw, size: int, step: float, width: float) -> None:
    """Upright bars over a square."""
    for number in range(int(size / step) + 1):
        draw.rectangle((number * step, 0, number * step + width, size), 255)


def floor(artist: Artist, rng: np.random.Generator) -> Image.Image:
    """Bricks, tiles or planks on a receding plane, or straight ahead, joints between them."""
    panel = artist.photo(rng) if rng.random() < 0.6 else gradient(rng, PANEL)
    size = PANEL * 2
    stone = greyish(rng, 40, 230) if rng.random() < 0.6 else any_colour(rng)
    plane = Image.new("RGB", (size, size), stone)
    unit = float(np.exp(rng.uniform(np.log(12), np.log(110))))
    bricks(ImageDraw.Draw(plane), size, unit, stone, rng)
    if rng.random() < 0.5:
        plane = textured(plane, artist.photo(rng), rng)
    if rng.random() < 0.4:
        inside = (size // 6, size // 6, size - size // 6, size - size // 6)
        plane = plane.rotate(float(rng.choice([30, 45, 60, 90])), Image.Resampling.BICUBIC).crop(inside)
    paste_in_perspective(panel, plane, receding(rng), rng, shade=True)
    return panel


def bricks(
    draw: ImageDraw.ImageDraw, size: int, unit: float, stone: Colour, rng: np.random.Generator
) -> None:
    """Fill a square with bricks, tiles or planks of `unit` pixels' height, each a little lighter or darker."""
    joint = mixed(stone, BLACK if rng.random() < 0.7 else WHITE, float(rng.uniform(0.15, 0.7)))
    draw.rectangle((0, 0, size, size), joint)
    length = unit * float(rng.choice([1, 1, 2, 2.5, 8]))
    gap = max(1.0, unit * float(rng.uniform(0.02, 0.15)))
    shift = float(rng.choice([0, 0.5, 0.5, rng.uniform(0, 1)]))
    other, spread = any_colour(rng), float(rng.uniform(0, 0.25))
    checked = rng.random() < 0.2
    for row in range(int(size / unit) + 1):
        x = -length * ((row * shift) % 1)
        top, bottom, column = row * unit + gap / 2, (row + 1) * unit - gap / 2, 0
        while x < size:
            shade = mixed(stone, WHITE if rng.random() < 0.5 else BLACK, float(rng.uniform(0, spread)))
            if checked and (row + column) % 2:
                shade = mixed(shade, other, 0.6)
            draw.rectangle((x + gap / 2, top, x + length - gap / 2, bottom), shade)
            x, column = x + length, column + 1


def textured(plane: Image.Image, photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A plane with the grain of a photo."""
    grain = photo.convert("L").resize((PANEL // 2, PANEL // 2), Image.Resampling.BICUBIC)
    grain = tiled(grain.convert("RGB"), *plane.size)
    return Image.blend(plane, ImageChops.multiply(plane, grain), float(rng.uniform(0.1, 0.5)))


def leaning(rng: np.random.Generator) -> list[Point]:
    """Where the corners of a facade come to lie: clockwise from the top left; it may reach beyond the panel."""
    left, right = sorted(float(v) for v in rng.uniform(-0.4, 1.4, 2) * PANEL)
    if right - left < 0.55 * PANEL:
        left, right = left - 0.3 * PANEL, right + 0.3 * PANEL
    tops, bottoms = rng.uniform(-0.7, 0.35, 2) * PANEL, rng.uniform(0.75, 1.6, 2) * PANEL
    tilt = rng.uniform(-0.08, 0.08, 2) * PANEL
    return [
        (left, float(tops[0])), (right, float(tops[1])),
        (right + float(tilt[1]), float(bottoms[1])), (left + float(tilt[0]), float(bottoms[0])),
    ]  # fmt: skip


def receding(rng: np.random.Generator) -> list[Point]:
    """Corners of a floor, or of a wall beside it, or of one straight ahead."""
    far, kind = float(rng.uniform(0.05, 0.5)) * PANEL, rng.random()
    shift, narrow = float(rng.uniform(-0.3, 0.3)) * PANEL, float(rng.uniform(0.35, 0.8)) * PANEL
    middle = PANEL / 2 + shift
    near, beyond = (-0.9 * PANEL, 1.9 * PANEL), 1.2 * PANEL
    if kind < 0.5:
        return [(middle - narrow, far), (middle + narrow, far), (near[1], beyond), (near[0], beyond)]
    if kind < 0.8:
        x, end = -0.3 * PANEL, PANEL - far
        return [(x, -0.6 * PANEL), (end, middle - narrow), (end, middle + narrow), (x, 1.6 * PANEL)]
    return wobbly(rng, (PANEL, PANEL), whole=True)
