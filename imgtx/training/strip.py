"""A strip of validation pictures: input, bicubic where that enlarges it, output and original, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imgtx.imageops.metrics import psnr_y
from imgtx.imageops.resize import imresize

PANEL, GAP, LABEL = 192, 4, 18  # pixels of a panel, between panels, of the line above each
ROWS = 4


@dataclass(frozen=True)
class ValidationSample:
    """One validation image as (h, w, 3) and (scale h, scale w, 3) uint8: input, output, original."""

    small: np.ndarray
    output: np.ndarray
    clean: np.ndarray


def draw_strip(images: Sequence[ValidationSample]) -> Image.Image:
    """A row for each of the first images by name, cut from the middle: nobody chose the place."""
    rows = [_row(image) for image in images[:ROWS]]
    picture = Image.new(
        "RGB", (len(rows[0]) * (PANEL + GAP) - GAP, len(rows) * (PANEL + LABEL + GAP)), "white"
    )
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for y, panels in enumerate(rows):
        for x, (label, pixels) in enumerate(panels):
            corner = (x * (PANEL + GAP), y * (PANEL + LABEL + GAP))
            draw.text((corner[0] + 2, corner[1] + 2), label, fill="black", font=font)
            panel = Image.fromarray(pixels).resize((PANEL, PANEL), Image.Resampling.NEAREST)
            picture.paste(panel, (corner[0], corner[1] + LABEL))
    return picture


def _row(image: ValidationSample) -> list[tuple[str, np.ndarray]]:
    scale = image.clean.shape[0] // image.small.shape[0]
    side = min(PANEL // 2, *(length // scale * scale for length in image.clean.shape[:2])) // scale
    top, left = ((length - side) // 2 for length in image.small.shape[:2])
    small = image.small[top : top + side, left : left + side]
    place = (slice(scale * top, scale * (top + side)), slice(scale * left, scale * (left + side)))

    def label(name: str, pixels: np.ndarray) -> str:
        return f"{name} {psnr_y(pixels, image.clean, crop=scale):.2f} dB"

    model, original = (label("model", image.output), image.output[place]), ("original", image.clean[place])
    if scale == 1:
        return [(label("input", image.small), small), model, original]
    bicubic = imresize(image.small, scale)
    return [(f"input x{scale}", small), (label("bicubic", bicubic), bicubic[place]), model, original]
