"""Panels of charts, and of programs' windows as a screen shows them."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.drawn.artist import Artist
from bench.drawn.letters import Hand, font_of, stamp, word, words
from bench.drawn.tools import BLACK, PANEL, SUPER, WHITE, Colour, any_colour, contrast, down, greyish, mixed

PLOT = tuple(int(PANEL * share) * SUPER for share in (0.12, 0.08, 0.96, 0.88))  # left, top, right, bottom


@dataclass(frozen=True)
class Axes:
    """A chart's own: colours, width of lines in pixels of the large drawing, how many marks an axis has."""

    ground: Colour
    ink: Colour
    line: int
    marks: int
    inks: list[Colour]


def chart(artist: Artist, rng: np.random.Generator) -> Image.Image:
    """Axes with marks and numbers; curves, bars, points or a pie; a key."""
    ground, ink = contrast(rng) if rng.random() < 0.5 else (WHITE, BLACK)
    large = Image.new("RGB", (PANEL * SUPER, PANEL * SUPER), ground)
    draw = ImageDraw.Draw(large)
    left, top, right, bottom = PLOT
    width = int(rng.integers(1, 3)) * SUPER // (1 if rng.random() < 0.6 else 2)
    marks = int(rng.integers(3, 12))
    grid = rng.random() < 0.6
    axes = Axes(ground, ink, width, marks, [any_colour(rng) for _ in range(5)])
    if grid:
        for mark in range(1, marks):
            y, x = bottom - (bottom - top) * mark / marks, left + (right - left) * mark / marks
            draw.line((left, y, right, y), mixed(ground, ink, 0.2), max(1, width // 2))
            draw.line((x, top, x, bottom), mixed(ground, ink, 0.2), max(1, width // 2))
    kind = rng.random()
    shown = curves if kind < 0.35 else bars if kind < 0.65 else points if kind < 0.85 else pie
    shown(draw, axes, rng)
    draw.line((left, top, left, bottom, right, bottom), ink, max(1, width))
    panel = down(large, rng)
    label(artist, panel, axes, rng)
    return panel


def curves(draw: ImageDraw.ImageDraw, axes: Axes, rng: np.random.Generator) -> None:
    left, top, right, bottom = PLOT
    for number in range(int(rng.integers(2, 7))):
        steps = int(rng.integers(8, 90))
        y = np.clip(np.cumsum(rng.normal(0, 0.6 / np.sqrt(steps), steps)) + rng.uniform(0.2, 0.8), 0, 1)
        way = [
            (left + (right - left) * i / (steps - 1), bottom - (bottom - top) * v) for i, v in enumerate(y)
        ]
        draw.line(way, axes.inks[number % 5], max(1, int(axes.line * rng.uniform(0.7, 2.5))), joint="curve")


def bars(draw: ImageDraw.ImageDraw, axes: Axes, rng: np.random.Generator) -> None:
    left, top, right, bottom = PLOT
    count = int(rng.integers(5, 50))
    step = (right - left) / count
    for bar in range(count):
        high = bottom - (bottom - top) * rng.beta(2, 2)
        x = left + step * bar
        ink = axes.inks[bar % int(rng.integers(1, 5))]
        draw.rectangle((x + 0.12 * step, high, x + 0.85 * step, bottom), ink)


def points(draw: ImageDraw.ImageDraw, axes: Axes, rng: np.random.Generator) -> None:
    left, top, right, bottom = PLOT
    for _ in range(int(rng.integers(30, 300))):
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        r = rng.uniform(1.5, 5) * SUPER
        fill, edge = axes.inks[int(rng.integers(5))], axes.ink if rng.random() < 0.3 else None
        draw.ellipse((x - r, y - r, x + r, y + r), fill, edge)


def pie(draw: ImageDraw.ImageDraw, axes: Axes, rng: np.random.Generator) -> None:
    cuts = np.sort(rng.uniform(0, 360, int(rng.integers(4, 14))))
    for number, start in enumerate(cuts):
        end = cuts[number + 1] if number + 1 < len(cuts) else cuts[0] + 360
        draw.pieslice(PLOT, float(start), float(end), axes.inks[number % 5], axes.ground, axes.line)


def label(artist: Artist, panel: Image.Image, axes: Axes, rng: np.random.Generator) -> None:
    """Numbers along both axes, a title, what the upright axis means, a key."""
    left, top, right, bottom = (side / SUPER for side in PLOT)
    script, size = artist.fonts.script(rng), float(rng.uniform(7, 14))
    hand = Hand(artist.fonts.path("latin", rng), size, axes.ink)
    for mark in range(axes.marks + 1):
        value = f"{mark * float(rng.choice([0.25, 1, 20])):g}"
        y = bottom - (bottom - top) * mark / axes.marks
        stamp(panel, value, hand, (left * 0.4, y - size / 2), rng)
        x = left + (right - left) * mark / axes.marks
        stamp(panel, value, hand, (x - 6, bottom + 5), rng)
    title = words(script, 4, rng)
    stamp(panel, title, Hand(artist.fonts.path(script, rng), size * 1.5, axes.ink), (left, 8), rng)
    upright = Hand(hand.font, size, axes.ink, angle=90)
    stamp(panel, words("latin", 2, rng), upright, (6.0, PANEL * 0.35), rng)
    for number in range(int(rng.integers(0, 5))):
        y = top + 8 + 1.6 * size * number
        ImageDraw.Draw(panel).rectangle((right - 90, y, right - 76, y + 7), axes.inks[number])
        label = Hand(artist.fonts.path(script, rng), size, axes.ink)
        stamp(panel, word(script, rng), label, (right - 70, y - 3), rng)


@dataclass(frozen=True)
class Look:
    """A program's: letters fitted to pixels, height of a row in pixels, colours."""

    script: str
    font: ImageFont.FreeTypeFont
    size: int
    row: int
    ink: Colour
    ground: Colour
    accent: Colour


def screen(artist: Artist, rng: np.random.Generator) -> Image.Image:
    """A window: a bar, a list at the side, rows of a table, text, buttons, pictures."""
    dark = rng.random() < 0.35
    shades = sorted(int(v) for v in (rng.integers(10, 70, 4) if dark else rng.integers(200, 256, 4)))
    ink = greyish(rng, 190, 255) if dark else greyish(rng, 0, 70)
    accent, script, size = any_colour(rng), artist.fonts.script(rng), int(rng.integers(9, 18))
    font = font_of(artist.fonts.path(script, rng), size)
    row = int(size * rng.uniform(1.5, 2.4))
    ground, bar, aside = ((shade, shade, shade) for shade in shades[:3])
    look = Look(script, font, size, row, ink, ground, accent)
    panel = Image.new("RGB", (PANEL, PANEL), ground)
    draw = ImageDraw.Draw(panel)
    draw.rectangle((0, 0, PANEL, row + 4), accent if rng.random() < 0.5 else bar)
    draw.text((10, 4), words(script, 3, rng), ink, font)
    for number in range(3):  # a window's knobs
        x = PANEL - 22 * (number + 1)
        draw.ellipse((x, 6, x + 11, 17), any_colour(rng))
    side = int(rng.integers(0, 160))
    draw.rectangle((0, row + 5, side, PANEL), aside)
    draw.line((side, row + 5, side, PANEL), mixed(aside, ink, 0.3))
    y = row + 10
    while y < PANEL:
        if side > 60:
            icon(draw, look, y + 2, rng)
            draw.text((10 + size, y), word(script, rng), ink, font)
        y += element(artist, panel, look, (side + 10, y), rng)
    return panel


def element(
    artist: Artist, panel: Image.Image, look: Look, place: tuple[int, int], rng: np.random.Generator
) -> int:
    """A row of a table, of text, of buttons or of pictures; returns its height."""
    draw, kind, (x, y) = ImageDraw.Draw(panel), rng.random(), place
    if kind < 0.45:
        rule = (x - 4, y + look.row - 2, PANEL - 6, y + look.row - 2)
        while x < PANEL:
            label = word(look.script, rng) if rng.random() < 0.6 else f"{rng.integers(10**5)}"
            draw.text((x, y), label, look.ink, look.font)
            x += int(rng.integers(50, 130))
        draw.line(rule, mixed(look.ground, look.ink, 0.2))
        return look.row
    if kind < 0.7:
        draw.text((x, y), words(look.script, 9, rng), look.ink, look.font)
        return look.row
    if kind < 0.85:
        while x < PANEL - 90:
            wide, corner = int(rng.integers(50, 120)), int(rng.integers(0, 7))
            fill = look.accent if rng.random() < 0.4 else None
            edge = mixed(look.ground, look.ink, 0.5)
            draw.rounded_rectangle((x, y, x + wide, y + look.row), corner, fill, edge)
            draw.text((x + 6, y + 3), word(look.script, rng)[: wide // look.size + 2], look.ink, look.font)
            x += wide + 12
        return look.row + 8
    high = int(rng.integers(40, 110))
    while x < PANEL - high:
        panel.paste(artist.photo(rng, 256).resize((high, high), Image.Resampling.BICUBIC), (x, y))
        x += high + 10
    return look.row + high


def icon(draw: ImageDraw.ImageDraw, look: Look, y: int, rng: np.random.Generator) -> None:
    ink = look.accent if rng.random() < 0.3 else look.ink
    left, right, bottom = 6, 4 + look.size, y + look.size - 2
    kind = int(rng.integers(4))
    if kind == 0:
        draw.rectangle((left, y, right, bottom), None, ink)
    elif kind == 1:
        draw.ellipse((left, y, right, bottom), ink)
    elif kind == 2:
        draw.polygon([(left, bottom), ((left + right) / 2, y), (right, bottom)], None, ink)
    else:
        for line in range(3):
            height = y + (bottom - y) * (line + 0.5) / 3
            draw.line((left, height, right, height), ink)
