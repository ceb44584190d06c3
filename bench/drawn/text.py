"""Panels of text: pages, words strewn over photos, signs in perspective."""

import numpy as np
from PIL import Image, ImageDraw

from bench.drawn.artist import Artist
from bench.drawn.letters import Hand, stamp, word, words
from bench.drawn.tools import PANEL, Colour, any_colour, contrast, ink_for, paste_in_perspective, wobbly


def page(artist: Artist, rng: np.random.Generator) -> Image.Image:
    """Columns of lines in one or two fonts, as books, papers and receipts have them; some turned a little."""
    ground, ink = contrast(rng)
    panel = Image.new("RGB", (PANEL, PANEL), ground)
    if rng.random() < 0.2:
        panel = artist.ground(rng, 0.5)
        ink = ink_for(panel, rng)
    columns, script = int(rng.integers(1, 4)), artist.fonts.script(rng)
    body = float(rng.uniform(6, 22))
    fonts = [artist.fonts.path(script, rng) for _ in range(2)]
    width = PANEL / columns
    for column in range(columns):
        top = float(rng.uniform(-10, 10))
        while top < PANEL:
            headline = rng.random() < 0.08
            size = body * float(rng.uniform(1.4, 3.5)) if headline else body
            hand = Hand(fonts[1 if headline else 0], size, ink)
            wide = width - 14
            if rng.random() < 0.12:
                wide -= float(rng.uniform(0.2, 0.8)) * width  # a paragraph ends
            text_line = line(script, hand, wide, rng)
            if rng.random() >= 0.95:
                hand = Hand(hand.font, size, any_colour(rng))
            stamp(panel, text_line, hand, (column * width + 6, top), rng)
            top += size * float(rng.choice([1.25, 1.35, 1.5]))
    if rng.random() >= 0.3:
        return panel
    corner = panel.getpixel((1, 1))
    return panel.rotate(float(rng.uniform(-8, 8)), Image.Resampling.BICUBIC, fillcolor=corner)


def line(script: str, hand: Hand, wide: float, rng: np.random.Generator) -> str:
    """Words that fill a column `wide` pixels."""
    made, count = words(script, int(rng.integers(3, 6)), rng), 0
    while count < 12 and hand.width(made) < wide - hand.size * 3:
        made, count = f"{made} {word(script, rng)}", count + 1
    while len(made) > 1 and hand.width(made) > wide:
        made = made[:-1]
    return made


def scatter(artist: Artist, rng: np.random.Generator) -> Image.Image:
    """Words of all sizes at all angles on a ground, mostly a photo; some outlined, some see-through."""
    panel = artist.ground(rng, 0.75)
    for _ in range(int(rng.integers(20, 70))):
        script = artist.fonts.script(rng)
        size = float(np.exp(rng.uniform(np.log(6), np.log(56))))
        angle = any_angle(rng)
        x, y = float(rng.uniform(-40, PANEL - 20)), float(rng.uniform(-10, PANEL - 8))
        text = words(script, int(rng.integers(1, 4 if size > 20 else 9)), rng)
        ink = ink_at(panel, int(x), int(y), rng)
        outline = any_colour(rng) if rng.random() < 0.2 else None
        opacity = 1.0 if rng.random() < 0.75 else float(rng.uniform(0.3, 1))
        hand = Hand(artist.fonts.path(script, rng), size, ink, angle, opacity, outline)
        stamp(panel, text, hand, (x, y), rng)
    return panel


def any_angle(rng: np.random.Generator) -> float:
    if rng.random() < 0.4:
        return 0.0
    return float(rng.choice([rng.uniform(-12, 12), rng.uniform(0, 360)]))


def ink_at(panel: Image.Image, x: int, y: int, rng: np.random.Generator) -> Colour:
    """Return mostly one that contrasts with what is there."""
    left, top = max(0, x), max(0, y)
    around = panel.crop((left, top, left + 60, top + 20))
    return ink_for(around, rng) if rng.random() < 0.85 else any_colour(rng)


def sign(artist: Artist, rng: np.random.Generator) -> Image.Image:
    """Boards with text and frames, seen at an angle, on a photo."""
    panel = artist.photo(rng)
    for _ in range(int(rng.integers(2, 5))):
        made = board(artist, rng)
        paste_in_perspective(panel, made, wobbly(rng, made.size), rng)
    return panel


def board(artist: Artist, rng: np.random.Generator) -> Image.Image:
    side = int(rng.integers(160, 420))
    height = int(side * rng.uniform(0.3, 1.1))
    ground, ink = contrast(rng)
    made = Image.new("RGB", (side, height), ground)
    edge = int(rng.integers(1, 7))
    if rng.random() < 0.6:
        frame = (edge, edge, side - edge, height - edge)
        ImageDraw.Draw(made).rectangle(frame, None, ink, max(1, edge // 2))
    script, top = artist.fonts.script(rng), 2.0 * edge + 2
    font = artist.fonts.path(script, rng)
    while top < height - 12:
        size = float(rng.uniform(8, max(10.0, height / 3)))
        text = words(script, int(rng.integers(1, 4)), rng)
        stamp(made, text, Hand(font, size, ink), (2.0 * edge + 4, top), rng)
        top += 1.3 * size
    return made
