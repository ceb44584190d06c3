"""Vary the sharpness of clean crops, as other cameras, scanners and resizers leave it.

A collection's photos often came through one pipeline, and a model learns how sharp that one leaves an edge: it then
gains on such photos and hardly on others (LOG.md). Reduced by other filters, or blurred, before the low-resolution
side is made, the same photos teach that edges differ.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from imgtx.errors import UsageError

FILTERS = (
    Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS,
)  # fmt: skip


@dataclass(frozen=True)
class SharpnessAugmentation:
    """Vary how sharp clean crops are.

    Half of the crops are reduced by a factor between 1 and `downscale` with a filter drawn at random; half, drawn
    independently, are blurred by a Gaussian of standard deviation between 0 and `blur` pixels. Raises UsageError for
    values out of range.
    """

    downscale: float = 1.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        if not self.downscale >= 1:
            raise UsageError(f"downscale = {self.downscale}: must be 1 (crops as they are) or more")
        if not self.blur >= 0:
            raise UsageError(f"blur = {self.blur}: must be 0 (crops as they are) or more pixels")

    def __bool__(self) -> bool:
        return self.downscale > 1 or self.blur > 0

    def crop(self, clean: np.ndarray, top: int, left: int, side: int, rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) uint8 -> (side, side, 3) uint8, around the square at (top, left) as far as the image extends.

        Without augmentation it is that square, and nothing is drawn, so that older recipes keep their crops.
        """
        if not self:
            return clean[top : top + side, left : left + side]
        largest = min(self.downscale, min(clean.shape[:2]) / side)
        factor = rng.uniform(1, largest) if rng.random() < 0.5 else 1.0
        sigma = rng.uniform(0, self.blur) if rng.random() < 0.5 else 0.0
        taken = int(side * factor)
        first, second = (
            min(max(0, start - (taken - side) // 2), length - taken)
            for start, length in zip((top, left), clean.shape[:2], strict=True)
        )
        image = Image.fromarray(clean[first : first + taken, second : second + taken])
        if taken > side:
            image = image.resize((side, side), FILTERS[int(rng.integers(len(FILTERS)))])
        if sigma:
            image = image.filter(ImageFilter.GaussianBlur(sigma))
        return np.asarray(image)
