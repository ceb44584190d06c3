"""Draw a contact sheet: pictures in a grid, each with its caption."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from imgtx.codecs import SUFFIXES, WRITABLE, Picture, decode, encode
from imgtx.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image, ImageFont

# Pixels.
CELL, MARGIN, GAP = 192, 24, 16
FONT, LINE = 14, 18
MAX_LINES = 3
MAX_COLUMNS = 8
INK, PAPER, FAINT = "#1a1a1a", "#ffffff", "#6b6b6b"
# Of a picture on a sheet; larger ones are refused as everywhere.
MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Cell:
    """One picture: the bytes of its file, its caption, and a second line such as its seed."""

    data: bytes
    caption: str
    detail: str = ""


def sheet_format(name: str) -> str:
    """Return the format of a sheet by its name; UsageError for a name without a writable format's suffix."""
    format = SUFFIXES.get(PurePosixPath(name).suffix.lower(), "")
    if format in WRITABLE:
        return format
    raise UsageError(f"--sheet {name}: must end in .png, .jpg or .webp")


def draw_sheet(cells: Iterable[Cell], title: str, format: str) -> bytes:
    """Return the file of a sheet with these pictures, row by row in their order, below a title."""
    from PIL import Image, ImageDraw

    made = list(cells)
    columns = max(1, min(MAX_COLUMNS, math.ceil(math.sqrt(1.6 * len(made)))))
    rows = max(1, math.ceil(len(made) / columns))
    font = _font(FONT)
    pitch_x, pitch_y = CELL + GAP, CELL + (MAX_LINES + 1) * LINE + GAP
    width = 2 * MARGIN + max(columns, 2) * pitch_x - GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + 2 * LINE + rows * pitch_y - GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), _fitted(title, font, width - 2 * MARGIN), INK, font)
    for number, cell in enumerate(made):
        left = MARGIN + number % columns * pitch_x
        top = MARGIN + 2 * LINE + number // columns * pitch_y
        picture = _scaled(cell.data)
        sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
        lines = _wrapped(cell.caption, font)
        for at, line in enumerate(lines):
            draw.text((left, top + CELL + 4 + at * LINE), line, INK, font)
        draw.text((left, top + CELL + 4 + len(lines) * LINE), cell.detail, FAINT, font)
    pixels = np.asarray(sheet)
    return encode(Picture(pixels, None, b"", b"", format, ()), format, quality=90)[0]


def _scaled(data: bytes) -> "Image.Image":
    """Return a picture as large as fits into a cell; small ones are enlarged by a whole factor."""
    from PIL import Image

    decoded = decode(data, max_pixels=MAX_PIXELS)
    pixels = decoded.pixels if decoded.pixels.dtype == np.uint8 else (decoded.pixels / 257).astype(np.uint8)
    picture = Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())
    longest = max(picture.size)
    if longest * 2 <= CELL:
        factor = CELL // longest
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
    if longest > CELL:
        picture.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    return picture


def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    """Return a font of this machine that has more than Latin letters, else Pillow's own."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _wrapped(text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont") -> list[str]:
    """Return a caption in at most MAX_LINES lines of a cell's width; the last ends in an ellipsis if more follows."""
    lines: list[str] = []
    words = " ".join(text.split()).split(" ")
    while words and len(lines) < MAX_LINES:
        line, taken = words[0], 1
        while taken < len(words) and font.getlength(f"{line} {words[taken]}") <= CELL:
            line, taken = f"{line} {words[taken]}", taken + 1
        if len(lines) == MAX_LINES - 1 and taken < len(words):
            return [*lines, _fitted(" ".join(words), font, CELL)]
        lines.append(_fitted(line, font, CELL))
        words = words[taken:]
    return lines


def _fitted(text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int) -> str:
    """Return as much of a line as fits, with an ellipsis where it is cut."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
