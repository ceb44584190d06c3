"""Draw what the archive weights do to damaged photos, beside bicubic and the weights for clean photos.

python -m bench.archive_pictures docs/images/

Photo, crop and damage of each row are random, with a fixed seed. The photos are scikit-image's; no model was trained on
them.
"""

import sys
from pathlib import Path

import numpy as np

import imgtx
from bench.pictures import SIDE, sheet
from imgtx.degradations.archive import archive
from imgtx.imageops.metrics import psnr_y
from imgtx.imageops.resize import imresize

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "retina", "hubble_deep_field")
ROWS = 6
SEED = 2026


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for scale in (2, 4):
        rng = np.random.default_rng(SEED)
        models = [imgtx.load(f"sr-x{scale}"), imgtx.load(f"sr-x{scale}-archive")]
        rows = [row(rng, scale, models) for _ in range(ROWS)]
        sheet(rows).save(folder / f"sr-x{scale}-archive.png", optimize=True)


def row(rng: np.random.Generator, scale: int, models: list) -> list[tuple[str, np.ndarray]]:
    """Return five panels of a random crop, randomly damaged; PSNR-Y is of the 512 px around the crop."""
    import skimage.data

    photo = np.asarray(getattr(skimage.data, PHOTOS[rng.integers(len(PHOTOS))])())[..., :3]
    around = min(512, *(side // 12 * 12 for side in photo.shape[:2])) // 12 * 12
    top, left = (int(rng.integers(side - around + 1)) for side in photo.shape[:2])
    clean = np.ascontiguousarray(photo[top : top + around, left : left + around])
    small = archive(clean, scale, rng)
    outputs = {"bicubic": imresize(small, scale)} | {model.info.name: model(small) for model in models}
    y, x = (int(rng.integers(around - SIDE // 2)) // scale * scale for _ in range(2))
    cut = (slice(y, y + SIDE // 2), slice(x, x + SIDE // 2))
    panels = [(f"input x{scale}", small.repeat(scale, 0).repeat(scale, 1)[cut])]
    panels += [
        (f"{name}  {psnr_y(image, clean, crop=scale):.2f} dB", image[cut]) for name, image in outputs.items()
    ]
    return [*panels, ("original", clean[cut])]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
