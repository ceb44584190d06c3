"""Panels of lines: hatching down to what a reduced picture can just hold, and pages of comics."""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from bench.drawn.artist import Artist
from bench.drawn.letters import Hand, stamp, word
from bench.drawn.structures import stripes
from bench.drawn.tools import BLACK, PANEL, SUPER, WHITE, Colour, any_colour, contrast, down, greyish

Frame = tuple[int, int, int, int]


def hatching(artist: Artist, rng: np.random.Generator) -> Image.Image:
    """Patches of parallel lines of every direction and width."""
    size = PANEL * SUPER
    panel = Image.new("RGB", (size, size), any_colour(rng))
    for _ in range(int(rng.integers(6, 16))):
        ground, ink = contrast(rng) if rng.random() < 0.6 else (any_colour(rng), any_colour(rng))
        step = float(np.exp(rng.uniform(np.log(3.2), np.log(26)))) * SUPER
        layer = lines(size, step, rng)
        mask = Image.new("L", (size, size))
        blob(ImageDraw.Draw(mask), size, rng)
        inked, bare = (Image.new("RGB", (size, size), colour) for colour in (ink, ground))
        panel.paste(Image.composite(inked, bare, layer), (0, 0), mask)
    return down(panel, rng)


def lines(size: int, step: float, rng: np.random.Generator) -> Image.Image:
    """A square of lines `step` pixels apart, 255 where there is ink: straight, round, bent, or running to a point."""
    layer = Image.new("L", (size, size))
    draw = ImageDraw.Draw(layer)
    kind = rng.random()
    if kind < 0.6:
        stripes(draw, size, step, step * float(rng.uniform(0.2, 0.8)))
        if rng.random() < 0.25:
            other = layer.rotate(float(rng.uniform(30, 150)), Image.Resampling.BICUBIC)
            layer = ImageChops.lighter(layer, other)
        return layer.rotate(float(rng.choice([0, 90, rng.uniform(0, 180)])), Image.Resampling.BICUBIC)
    if kind < 0.75:
        rings(draw, size, step, rng)
    elif kind < 0.9:
        layer = wave(size, step, rng)
    else:
        fan(draw, size, rng, 255)
    return layer


def comic(artist: Artist, rng: np.random.Generator) -> Image.Image:
    """Ink drawings in frames: strokes of changing width, black areas, screen tones, balloons with text."""
    size = PANEL * SUPER
    paper = WHITE if rng.random() < 0.7 else greyish(rng, 200, 255)
    coloured = rng.random() < 0.3
    sheet = Image.new("RGB", (size, size), paper)
    gap = int(rng.integers(4, 12)) * SUPER
    for box in frames((0, 0, size, size), gap, rng):
        sheet.paste(drawing((box[2] - box[0], box[3] - box[1]), paper, coloured, rng), box[:2])
        ImageDraw.Draw(sheet).rectangle(box, None, BLACK, int(rng.integers(1, 4)) * SUPER)
    panel = down(sheet, rng)
    for _ in range(int(rng.integers(0, 5))):
        balloon(artist, panel, rng)
    return panel


def drawing(size: tuple[int, int], paper: Colour, coloured: bool, rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGB", size, paper)
    for _ in range(int(rng.integers(2, 8))):
        mask = Image.new("L", size)
        blob(ImageDraw.Draw(mask), max(size), rng)
        kind = rng.random()
        if kind < 0.45:
            tone = screen_tone(*size, rng)
            fill = Image.composite(Image.new("RGB", size, BLACK), Image.new("RGB", size, paper), tone)
        elif kind < 0.65:
            fill = Image.new("RGB", size, greyish(rng, 0, 30))
        else:
            fill = Image.new("RGB", size, any_colour(rng) if coloured else greyish(rng, 90, 255))
        picture.paste(fill, (0, 0), mask)
        outline = mask.filter(ImageFilter.MaxFilter(2 * int(rng.integers(1, 4)) + 1))
        picture.paste(BLACK, (0, 0), ImageChops.difference(outline, mask))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(10, 60))):
        stroke(draw, size, rng)
    if rng.random() < 0.25:
        fan(draw, max(size), rng, BLACK)
    return picture


def balloon(artist: Artist, panel: Image.Image, rng: np.random.Generator) -> None:
    width, height = int(rng.integers(70, 190)), int(rng.integers(50, 150))
    left, top = int(rng.integers(0, PANEL - 60)), int(rng.integers(0, PANEL - 40))
    bubble, inner = (Image.new("L", (width * 4, height * 4)) for _ in range(2))
    ImageDraw.Draw(bubble).ellipse((0, 0, width * 4 - 1, height * 4 - 1), 255)
    edge = int(rng.integers(4, 10))
    ImageDraw.Draw(inner).ellipse((edge, edge, width * 4 - edge, height * 4 - edge), 255)
    panel.paste(BLACK, (left, top), bubble.reduce(4))
    panel.paste(WHITE, (left, top), inner.reduce(4))
    script, size = artist.fonts.script(rng), float(rng.uniform(8, 17))
    hand, y = Hand(artist.fonts.path(script, rng), size, BLACK), top + height * 0.22
    while y < top + height * 0.72:
        told = word(script, rng)[: max(2, int(width / size))]
        stamp(panel, told, hand, (left + width * float(rng.uniform(0.18, 0.3)), y), rng)
        y += 1.2 * size


def frames(box: Frame, gap: int, rng: np.random.Generator, depth: int = 2) -> Iterator[Frame]:
    """A page cut into frames, at random."""
    left, top, right, bottom = box
    if not depth or rng.random() < 0.2:
        if right - left > 2 * gap + 30 and bottom - top > 2 * gap + 30:
            yield left + gap, top + gap, right - gap, bottom - gap
        return
    if rng.random() < 0.5:
        cut = int(left + (right - left) * rng.uniform(0.3, 0.7))
        parts = ((left, top, cut, bottom), (cut, top, right, bottom))
    else:
        cut = int(top + (bottom - top) * rng.uniform(0.3, 0.7))
        parts = ((left, top, right, cut), (left, cut, right, bottom))
    for part in parts:
        yield from frames(part, gap, rng, depth - 1)


def blob(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
    """A round or straight-edged area, somewhere, in white."""
    x, y = rng.uniform(0, size, 2)
    radius = size * rng.uniform(0.08, 0.45)
    corners = int(rng.integers(3, 6)) if rng.random() < 0.4 else 40
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(0, 6)
    bump, count = rng.uniform(0, 0.35), int(rng.integers(2, 6))
    lengths = radius * (1 + bump * np.sin(count * angles + rng.uniform(0, 6)))
    stretch = rng.uniform(0.5, 1)
    edge = zip(lengths, angles, strict=True)
    draw.polygon([(float(x + r * np.cos(a)), float(y + stretch * r * np.sin(a))) for r, a in edge], 255)


def fan(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator, ink: Colour | int) -> None:
    """Wedges that run towards a point, as speed lines and sunbursts do."""
    x, y = (float(v) for v in rng.uniform(-0.2, 1.2, 2) * size)
    count, inner = int(rng.integers(30, 160)), size * float(rng.uniform(0.1, 0.5))
    for angle in rng.uniform(0, 2 * np.pi, count):
        near, wide = inner * rng.uniform(0.8, 1.6), rng.uniform(0.002, 0.02)
        far = [(x + 2 * size * np.cos(angle + d), y + 2 * size * np.sin(angle + d)) for d in (-wide, wide)]
        draw.polygon([(x + near * np.cos(angle), y + near * np.sin(angle)), *far], ink)


def rings(draw: ImageDraw.ImageDraw, size: int, step: float, rng: np.random.Generator) -> None:
    x, y = (float(v) for v in rng.uniform(-0.3, 1.3, 2) * size)
    width = max(1, round(step * float(rng.uniform(0.2, 0.7))))
    for number in range(1, int(2 * size / step)):
        r = number * step
        draw.ellipse((x - r, y - r, x + r, y + r), None, 255, width)


def screen_tone(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Dots of a printed tone, 255 where there is ink; their size even, or growing to one side."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    step = float(np.exp(rng.uniform(np.log(3.5), np.log(11)))) * SUPER
    angle = float(rng.choice([np.pi / 4, np.pi / 4, rng.uniform(0, np.pi / 2)]))
    u = (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / step
    v = (y * np.cos(angle) - x * np.sin(angle)) * 2 * np.pi / step
    level = rng.uniform(-1.2, 1.2) + (
        rng.uniform(-1.5, 1.5) * (y / height - 0.5) if rng.random() < 0.5 else 0
    )
    dots = (np.cos(u) + np.cos(v) if rng.random() < 0.8 else 2 * np.cos(u)) > level
    return Image.fromarray(dots.astype(np.uint8) * 255)


def stroke(draw: ImageDraw.ImageDraw, size: tuple[int, int], rng: np.random.Generator) -> None:
    """A curve of ink that swells and thins."""
    a, b, c, d = bend = rng.uniform(-0.1, 1.1, (4, 2)) * size
    if rng.random() < 0.6:  # a short one
        a, b, c, d = a + (bend - a) * rng.uniform(0.1, 0.4)
    t = np.linspace(0, 1, 60)[:, None]
    points = (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d
    across = np.gradient(points, axis=0)[:, ::-1] * (1, -1)
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-6
    swell = rng.uniform(0.4, 2.2) * SUPER * (0.25 + np.sin(np.pi * t) ** rng.uniform(0.3, 2))
    outline = np.concatenate([points + across * swell / 2, (points - across * swell / 2)[::-1]])
    draw.polygon([tuple(point) for point in outline.tolist()], greyish(rng, 0, 20))


def wave(size: int, step: float, rng: np.random.Generator) -> Image.Image:
    """Lines that bend and crowd, 255 where there is ink."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    bent = x
    for number in range(3):
        reach = rng.uniform(0.5, 2.5) * step
        across, along = rng.uniform(0.5, 3) * 6.3 / size, rng.uniform(-3, 3) * 6.3 / size
        bent = bent + reach * np.sin(x * across + y * along + number)
    sine = np.sin(bent * 2 * np.pi / step)
    soft = np.clip(0.5 + sine * rng.uniform(0.6, 3) / 2, 0, 1)
    level = soft if rng.random() < 0.4 else (sine > rng.uniform(-0.5, 0.5)).astype(float)
    turned = Image.fromarray((level * 255).astype(np.uint8))
    return turned.rotate(float(rng.choice([0, 90, 180, 270])))
