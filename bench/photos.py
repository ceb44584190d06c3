"""Make an archive of real photos to measure on."""

from pathlib import Path

import numpy as np
from PIL import Image

PHOTOS = (
    "astronaut",
    "coffee",
    "chelsea",
    "rocket",
    "camera",
    "hubble_deep_field",
    "retina",
    "immunohistochemistry",
)


# Long sides of 4:3 pictures of 0.3 to 4 megapixels, more small ones than large ones.
SIDES = (2304, 640, 1536, 768, 1024, 1024)


def photo_archive(folder: Path, megapixels: float, *, sides: tuple[int, ...] = SIDES) -> float:
    """Fill `folder` with JPEG crops of real photos, of these long sides in turn; return their megapixels."""
    import skimage.data

    folder.mkdir(parents=True, exist_ok=True)
    rng, total, number = np.random.default_rng(0), 0.0, 0
    while total < megapixels:
        photo = np.asarray(getattr(skimage.data, PHOTOS[number % len(PHOTOS)])())
        photo = photo if photo.ndim == 3 else np.dstack([photo] * 3)
        side = sides[number % len(sides)]
        size = (side, side * 3 // 4)
        # A photo of another size is resampled: only the amount of work matters here.
        top, left = (int(rng.integers(0, max(1, n - 256))) for n in photo.shape[:2])
        image = Image.fromarray(photo[top:, left:]).resize(size, Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05}.jpg", quality=92)
        total += size[0] * size[1] / 1e6
        number += 1
    return total
