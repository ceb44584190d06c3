"""Draw crops at random as the original, bicubic, and two models of one scale: weights before and after a training.

python -m bench.before_after OLD.safetensors sr-x4 ../training-pictures/valid docs/models/sr-x4-before-after.png

The folder is what `bench.training_pictures` writes: a folder for each kind of picture. Which pictures and which places
depends on the seed alone; of six places in a picture the one with the strongest differences of neighbours is taken, so
that few crops are flat. PSNR-Y is of the crop.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import imgtx
from imgtx.imageops.metrics import psnr_y
from imgtx.imageops.resize import imresize
from imgtx.inference.predictor import Predictor

SEED, KINDS = 21, {"photos": 2, "cities": 2, "text": 1, "lineart": 1, "screens": 1, "paintings": 1}
# Pixels of a crop, its enlargement, what the models see around it, and between panels.
SIDE, ZOOM, AROUND, GAP, LABEL, PLACES = 96, 2, 64, 4, 18, 6


def main(before: str, after: str, folder: Path, out: Path) -> None:
    models = {"before": imgtx.load(before, device="cpu"), "after": imgtx.load(after, device="cpu")}
    rng = np.random.default_rng(SEED)
    rows = []
    for kind, count in KINDS.items():
        paths = sorted((folder / kind).iterdir())
        for number in rng.choice(len(paths), count, replace=False):
            clean = np.asarray(Image.open(paths[number]).convert("RGB"))
            rows.append(row(clean, place(clean, models["after"].info.scale, rng), models))
    sheet(rows).save(out, optimize=True)


def place(clean: np.ndarray, scale: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return top and left of the liveliest of some random places, as multiples of the scale."""

    def slope(corner: tuple[int, int]) -> float:
        top, left = corner
        part = clean[top : top + SIDE, left : left + SIDE].astype(int)
        return float(np.abs(np.diff(part, axis=1)).mean())

    def anywhere(length: int) -> int:
        return int(rng.integers(0, length - SIDE + 1)) // scale * scale

    return max([(anywhere(clean.shape[0]), anywhere(clean.shape[1])) for _ in range(PLACES)], key=slope)


def row(
    clean: np.ndarray, corner: tuple[int, int], models: dict[str, Predictor]
) -> list[tuple[str, np.ndarray]]:
    """Return the crop as the original, bicubic and by each model, with labels."""
    scale = models["after"].info.scale
    starts = [max(0, start - AROUND) // scale * scale for start in corner]
    ends = [
        min(length, start + SIDE + AROUND) // scale * scale
        for start, length in zip(corner, clean.shape, strict=False)
    ]
    large = np.ascontiguousarray(clean[starts[0] : ends[0], starts[1] : ends[1]])
    top, left = (at - start for at, start in zip(corner, starts, strict=True))
    cut = (slice(top, top + SIDE), slice(left, left + SIDE))
    small = imresize(large, 1 / scale)
    made = {"bicubic": imresize(small, scale)} | {name: model(small) for name, model in models.items()}
    labelled = [
        (f"{name} {psnr_y(pixels[cut], large[cut], crop=0):.2f} dB", pixels[cut])
        for name, pixels in made.items()
    ]
    return [("original", large[cut]), *labelled]


def sheet(rows: list[list[tuple[str, np.ndarray]]]) -> Image.Image:
    step_x, step_y = SIDE * ZOOM + GAP, SIDE * ZOOM + LABEL + GAP
    picture = Image.new("RGB", (len(rows[0]) * step_x - GAP, len(rows) * step_y), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for y, panels in enumerate(rows):
        for x, (label, pixels) in enumerate(panels):
            draw.text((x * step_x + 2, y * step_y + 2), label, fill="black", font=font)
            panel = Image.fromarray(pixels).resize((SIDE * ZOOM, SIDE * ZOOM), Image.Resampling.NEAREST)
            picture.paste(panel, (x * step_x, y * step_y + LABEL))
    return picture


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
