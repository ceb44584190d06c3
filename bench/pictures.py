"""Draw the pictures of the README: crops of photos as small input, bicubic, imgtx and the original.

python -m bench.pictures docs/images/
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import imgtx
from imgtx.imageops.metrics import psnr_y
from imgtx.imageops.resize import imresize

# Pixels of each panel.
SIDE = 256
GAP = 6


def main(folder: Path) -> None:
    import skimage.data

    folder.mkdir(parents=True, exist_ok=True)
    photos = {"astronaut": (40, 150), "coffee": (90, 190), "chelsea": (30, 130)}
    for scale in (2, 4):
        model = imgtx.load(f"sr-x{scale}")
        rows = [row(getattr(skimage.data, name)(), corner, scale, model) for name, corner in photos.items()]
        sheet(rows).save(folder / f"sr-x{scale}.png", optimize=True)


def row(photo: np.ndarray, corner: tuple[int, int], scale: int, model) -> list[tuple[str, np.ndarray]]:
    """Return the same crop four times: nearest, bicubic, the model, the original. PSNR-Y is of the whole photo."""
    height, width = (side // 12 * 12 for side in photo.shape[:2])
    clean = np.ascontiguousarray(photo[:height, :width, :3])
    small = imresize(clean, 1 / scale)
    bicubic, upscaled = imresize(small, scale), model(small)
    pixels = small.repeat(scale, 0).repeat(scale, 1)
    top, left = (side // scale * scale for side in corner)
    cut = (slice(top, top + SIDE // 2), slice(left, left + SIDE // 2))

    def label(name: str, image: np.ndarray) -> str:
        return f"{name}  {psnr_y(image, clean, crop=scale):.2f} dB"

    return [
        (f"input x{scale}", pixels[cut]),
        (label("bicubic", bicubic), bicubic[cut]),
        (label(f"sr-x{scale}", upscaled), upscaled[cut]),
        ("original", clean[cut]),
    ]


def sheet(rows: list[list[tuple[str, np.ndarray]]]) -> Image.Image:
    """Return all rows as one picture, each panel enlarged x2 by nearest neighbour so that pixels are visible."""
    step_x, step_y = SIDE + GAP, SIDE + GAP + 18
    picture = Image.new("RGB", (len(rows[0]) * step_x - GAP, len(rows) * step_y), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for y, panels in enumerate(rows):
        for x, (label, pixels) in enumerate(panels):
            panel = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            picture.paste(panel, (x * step_x, y * step_y + 18))
            draw.text((x * step_x + 2, y * step_y), label, fill="black", font=font)
    return picture


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
