"""Procedural training images (the dead-leaves model): edges, occlusions, gradients and textures without photos.

Leaves of power-law radii fall on each other; what is seen last covers what fell before. Such pictures share the
statistics of photographs that restoration learns from (Lee, Mumford, Huang, "Occlusion models for natural images",
IJCV 41, 2001; with textures and blur: "VibrantLeaves", arXiv 2504.10201), and no licence hangs on them.
"""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Edges are antialiased by drawing twice as large.
OVERSAMPLING = 2
# The range of a picture's smallest radius, in drawn pixels: from gravel to architecture.
SMALLEST_RADIUS = (3.0, 40.0)
# The largest radius as a share of the drawn picture's longer side.
LARGEST_SHARE = 0.35
# The total area of the leaves over that of the picture: one twentieth of the ground shows.
COVERED = 3.0
# A polygon has 3 to 8 corners; the other leaves are ellipses.
CORNERS = (3, 9)


def dead_leaves(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8, a function of the generator's state; no two states give the same picture."""
    rows, columns = OVERSAMPLING * height, OVERSAMPLING * width
    leaf = _fallen(rng, rows, columns)
    pixels = _painted(rng, leaf)
    picture = Image.fromarray(pixels).reduce(OVERSAMPLING)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.6)))))


def _fallen(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return which leaf is seen in each pixel: (rows, columns) int32, 0 the ground."""
    radii = _radii(rng, rows, columns)
    x, y = rng.uniform(0, columns, len(radii)), rng.uniform(0, rows, len(radii))
    slim, corners = rng.uniform(0.4, 1, len(radii)), rng.integers(0, CORNERS[1], len(radii))
    turn = rng.uniform(0, 2 * math.pi, len(radii))
    canvas = Image.new("I", (columns, rows))
    draw = ImageDraw.Draw(canvas)
    leaves = zip(
        x.tolist(), y.tolist(), radii.tolist(), slim.tolist(), corners.tolist(), turn.tolist(), strict=True
    )
    for number, (cx, cy, r, s, n, t) in enumerate(leaves, 1):
        if n < CORNERS[0]:
            draw.ellipse((cx - r, cy - r * s, cx + r, cy + r * s), fill=number)
        else:
            angles = [t + 2 * math.pi * k / n for k in range(n)]
            draw.polygon([(cx + r * math.cos(a), cy + r * s * math.sin(a)) for a in angles], fill=number)
    return np.asarray(canvas)


def _radii(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Draw radii with density r^-3, so that statistics are the same at every scale, for COVERED pictures."""
    largest = LARGEST_SHARE * max(rows, columns)
    least, most = (math.log(min(radius, largest / 2)) for radius in SMALLEST_RADIUS)
    smallest = math.exp(rng.uniform(least, most))
    mean_square = 2 * smallest**2 * math.log(largest / smallest)
    count = math.ceil(COVERED * rows * columns / (math.pi * 0.6 * mean_square))
    u = rng.uniform(0, 1, count)
    return (smallest**-2 + u * (largest**-2 - smallest**-2)) ** -0.5


def _painted(rng: np.random.Generator, leaf: np.ndarray) -> np.ndarray:
    """Return the leaves with colour, shading and texture: (rows, columns, 3) uint8."""
    rows, columns = leaf.shape
    count = int(leaf.max()) + 1
    y = np.arange(rows, dtype=np.float32)[:, None]
    x = np.arange(columns, dtype=np.float32)[None, :]
    slope = (rng.normal(0, 60, (2, count)) / max(rows, columns)).astype(np.float32)
    centre = rng.uniform(0, 1, (2, count)).astype(np.float32) * np.array([[rows], [columns]], np.float32)
    light = slope[0][leaf] * (y - centre[0][leaf]) + slope[1][leaf] * (x - centre[1][leaf])
    np.clip(light, -40, 40, out=light)
    light += _stripes(rng, leaf, y, x) + _grain(rng, leaf)
    colour = _colours(rng, count)
    pixels = np.empty((rows, columns, 3), np.uint8)
    for channel in range(3):
        value = colour[:, channel][leaf]
        value += light
        pixels[..., channel] = np.clip(value, 0, 255, out=value)
    return pixels


def _colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw colours of any lightness, saturated as in photographs, with one cast: (count, 3) float32."""
    cast = rng.normal(0, 15, 3)
    return (rng.uniform(10, 245, (count, 1)) + rng.normal(0, 15, (count, 3)) + cast).astype(np.float32)


def _stripes(rng: np.random.Generator, leaf: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return a wave of 3 to 40 drawn pixels' length across a third of the leaves, in levels."""
    count = int(leaf.max()) + 1
    length, angle = np.exp(rng.uniform(math.log(3), math.log(40), count)), rng.uniform(0, math.pi, count)
    depth = (rng.uniform(0, 45, count) * (rng.random(count) < 0.35)).astype(np.float32)
    across = (2 * math.pi / length * np.array([np.sin(angle), np.cos(angle)])).astype(np.float32)
    return depth[leaf] * np.sin(across[0][leaf] * y + across[1][leaf] * x)


def _grain(rng: np.random.Generator, leaf: np.ndarray) -> np.ndarray:
    """Return a cloudy texture on half of the leaves, in levels: octaves of equal strength, as in 1/f noise."""
    rows, columns = leaf.shape
    total = np.zeros((rows, columns), np.float32)
    for octave in (1, 2, 4, 8, 16):
        coarse = rng.standard_normal((rows // octave + 1, columns // octave + 1), np.float32)
        total += np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BILINEAR))
    count = int(leaf.max()) + 1
    depth = (rng.uniform(0, 14, count) * (rng.random(count) < 0.5)).astype(np.float32)
    return depth[leaf] * total
