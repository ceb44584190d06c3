"""Draw what restore and inpaint do at three levels of damage each.

python -m bench.restore_pictures docs/images/ [--restore MODEL] [--inpaint MODEL]

Photo, crop and damage of each row are random with a fixed seed, not selected. The photos are scikit-image's; no model
was trained on them.
"""

import argparse
from pathlib import Path

import numpy as np

import imgtx
from bench.archive_pictures import PHOTOS
from bench.pictures import SIDE, sheet
from imgtx.degradations.holes import KINDS, random_mask
from imgtx.degradations.restoration import RestorationDamage, restoration_pair
from imgtx.imageops.holes import with_mask
from imgtx.imageops.metrics import hole_scores, psnr

SEED = 2026
# Pixels a side that a model sees; half of SIDE is shown.
AROUND = 288
# The worst damage of each level: noise in levels of 255, JPEG quality; one of them or both.
LEVELS = {"light": (8.0, 75), "medium": (25.0, 30), "heavy": (55.0, 8)}
# Of each level.
ROWS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/images"))
    parser.add_argument("--restore", default="restore")
    parser.add_argument("--inpaint", default="inpaint")
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    restore, inpaint = imgtx.load(options.restore), imgtx.load(options.inpaint)
    rows = [restored(rng, name, restore) for name in LEVELS for _ in range(ROWS)]
    sheet(rows).save(options.folder / "restore.png", optimize=True)
    rows = [filled(rng, kind, inpaint) for kind in KINDS for _ in range(ROWS)]
    sheet(rows).save(options.folder / "inpaint.png", optimize=True)


def place(rng: np.random.Generator) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Return a square of a random photo, and the part of it that is shown."""
    import skimage.data

    photo = np.asarray(getattr(skimage.data, PHOTOS[rng.integers(len(PHOTOS))])())[..., :3]
    top, left = (int(rng.integers(side - AROUND + 1)) for side in photo.shape[:2])
    middle = slice((AROUND - SIDE // 2) // 2, (AROUND + SIDE // 2) // 2)
    return np.ascontiguousarray(photo[top : top + AROUND, left : left + AROUND]), (middle, middle)


def restored(rng: np.random.Generator, level: str, model) -> list[tuple[str, np.ndarray]]:
    """Return the panels for random damage of a level; PSNR is RGB, of the whole square."""
    clean, shown = place(rng)
    noise, quality = LEVELS[level]
    damage = RestorationDamage(
        noise=noise, worst_quality=quality, best_quality=min(95, quality + 10),
        noise_share=0.4, jpeg_share=0.3, both_share=0.3, blur_share=0, grey=0,
    )  # fmt: skip
    levels, clean = restoration_pair(clean, rng, damage)
    damaged = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    output = model(damaged)
    return [
        (f"{level}  {psnr(damaged, clean):.2f} dB", damaged[shown]),
        (f"restore  {psnr(output, clean):.2f} dB", output[shown]),
        ("original", clean[shown]),
    ]


def filled(rng: np.random.Generator, kind: str, model) -> list[tuple[str, np.ndarray]]:
    """Return the panels for a mask of a kind; PSNR is of the hole alone, in the whole square."""
    clean, shown = place(rng)
    hole = random_mask(rng, AROUND, AROUND, kind)
    outputs = {"smooth fill": with_mask(clean, hole)[..., :3], "inpaint": model(clean, hole)}
    damaged = np.where(hole[..., None], 255, clean).astype(np.uint8)
    panels = [(f"{kind}", damaged[shown])]
    for name, output in outputs.items():
        panels.append((f"{name}  {hole_scores(output, clean, hole)['psnr']:.2f} dB", output[shown]))
    return [*panels, ("original", clean[shown])]


if __name__ == "__main__":
    main()
