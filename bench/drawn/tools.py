"""Colours, grounds and perspective, shared by all that is drawn.

What is drawn is drawn SUPER times too large and reduced by one of several filters, so that edges are soft.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]
Point = tuple[float, float]

PANEL, SUPER = 512, 3  # pixels a side of a panel; how many times too large it is drawn
REDUCERS = (
    Image.Resampling.BOX, Image.Resampling.HAMMING, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS,
)  # fmt: skip
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def any_colour(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.4:
        return greyish(rng, 0, 256)
    return between(rng, 0, 256)


def between(rng: np.random.Generator, low: int, high: int) -> Colour:
    red, green, blue = (int(level) for level in rng.integers(low, high, 3))
    return red, green, blue


def greyish(rng: np.random.Generator, low: int, high: int) -> Colour:
    level = int(rng.integers(low, high))
    red, green, blue = (int(np.clip(level + v, 0, 255)) for v in rng.normal(0, 8, 3))
    return red, green, blue


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (round(a * (1 - share) + b * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def contrast(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Return a ground and an ink that contrasts with it: dark on light, or light on dark; sometimes faint."""
    weak = rng.random() < 0.2
    light = between(rng, 150 if weak else 200, 256)
    dark = between(rng, 60 if weak else 0, 150 if weak else 80)
    if rng.random() < 0.3:
        light, dark = WHITE, BLACK
    return (light, dark) if rng.random() < 0.7 else (dark, light)


def ink_for(ground: Image.Image, rng: np.random.Generator) -> Colour:
    """Return an ink that contrasts with a ground."""
    mean = np.asarray(ground.convert("L"), float).mean() if ground.width and ground.height else 128.0
    low, high = (190, 256) if mean < 128 else (0, 70)
    return greyish(rng, low, high) if rng.random() < 0.6 else between(rng, low, high)


def gradient(rng: np.random.Generator, side: int) -> Image.Image:
    """From one colour to another, in any direction."""
    first, second = (np.array(any_colour(rng), float) for _ in range(2))
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    t = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    return Image.fromarray((first * (1 - t) + second * t).astype(np.uint8))


@lru_cache(maxsize=512)
def load_photo(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def tiled(photo: Image.Image, width: int, height: int) -> Image.Image:
    """A photo repeated, every other one mirrored, to a size."""
    whole = Image.new("RGB", (width, height))
    for row in range(-(-height // photo.height)):
        for column in range(-(-width // photo.width)):
            one = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if column % 2 else photo
            one = one.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if row % 2 else one
            whole.paste(one, (column * photo.width, row * photo.height))
    return whole


def pick(choices: tuple[Image.Resampling, ...], rng: np.random.Generator) -> Image.Resampling:
    return choices[int(rng.integers(len(choices)))]


def down(large: Image.Image, rng: np.random.Generator) -> Image.Image:
    """What was drawn SUPER times too large, at its size."""
    return large.resize((large.width // SUPER, large.height // SUPER), pick(REDUCERS, rng))


def shaded(surface: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light that falls off over a surface, and a little grain."""
    height, width = surface.height, surface.width
    coarse = Image.fromarray(rng.uniform(0.65, 1.1, (3, 3)).astype(np.float32))
    light = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.normal(0, float(rng.uniform(0, 3)), (height, width, 1)).astype(np.float32)
    lit = np.asarray(surface, np.float32) * light[..., None] + grain
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


def paste_in_perspective(
    panel: Image.Image, surface: Image.Image, corners: list[Point], rng: np.random.Generator, *,
    shade: bool = False, mask: Image.Image | None = None,
) -> None:  # fmt: skip
    """Paste `surface` where `mask` is white; its corners, clockwise from the top left, come to lie at `corners`.

    With `shade` light falls off over it.
    """
    coefficients = projection([(SUPER * x, SUPER * y) for x, y in corners], surface.size)
    size = (panel.width * SUPER, panel.height * SUPER)
    whole = Image.new("L", surface.size, 255)
    cover = whole if mask is None else mask
    reducer = pick(REDUCERS, rng)
    if shade:
        surface = shaded(surface, rng)
    seen, covered, reached = (
        image.transform(size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC).resize(
            panel.size, reducer
        )
        for image in (surface, cover, whole)
    )
    # At its edges the surface is mixed with the black beyond: taken out again, for the mask mixes it with the panel.
    full = np.asarray(seen, np.float32) * 255 / np.maximum(np.asarray(reached, np.float32), 1)[..., None]
    panel.paste(Image.fromarray(np.clip(full, 0, 255).astype(np.uint8)), (0, 0), covered)


def projection(corners: list[Point], size: tuple[int, int]) -> list[float]:
    """Pillow's eight coefficients of the perspective that takes the corners back to a picture's own."""
    width, height = size
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, ((0, 0), (width, 0), (width, height), (0, height)), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(value) for value in np.linalg.solve(np.array(rows, float), np.array(values, float))]


def wobbly(rng: np.random.Generator, size: tuple[int, int], *, whole: bool = False) -> list[Point]:
    """Corners of a picture of `size`, turned and pulled about, somewhere in a panel; `whole`: beyond all its edges."""
    width, height = (1.3 * PANEL, 1.3 * PANEL) if whole else size
    x, y = (PANEL / 2, PANEL / 2) if whole else rng.uniform(0.15, 0.85, 2) * PANEL
    angle = float(rng.normal(0, 0.12))
    pull = rng.uniform(0.75, 1.1, (4, 2)) if not whole else rng.uniform(0.9, 1.5, (4, 2))
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * pull * (width / 2, height / 2)
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    return [(float(a + x), float(b + y)) for a, b in corners @ turn]
