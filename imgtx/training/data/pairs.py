"""Clean images and their reductions, which crops are cut from (numpy only)."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from imgtx.degradations.base import Degradation
from imgtx.errors import ImageError
from imgtx.imageops.resize import imresize

# Pixels a side of a reduced validation image: its borders are not measured.
MIN_VALID_SIDE = 8


@dataclass(frozen=True)
class Pair:
    """A clean image and its exact bicubic reduction: uint8, (scale h, scale w, 3) and (h, w, 3)."""

    key: str
    clean: np.ndarray
    small: np.ndarray

    @cached_property
    def scale(self) -> int:
        return self.clean.shape[0] // self.small.shape[0]

    @cached_property
    def gradient_sums(self) -> np.ndarray:
        """Sums of the green channel's absolute gradients above and left of each pixel: (h + 1, w + 1) int64."""
        green = self.small[..., 1].astype(np.int64)
        down = np.abs(np.diff(green, axis=0, append=green[-1:]))
        across = np.abs(np.diff(green, axis=1, append=green[:, -1:]))
        return np.pad(down + across, ((1, 0), (1, 0))).cumsum(0).cumsum(1)


def check_size(pixels: np.ndarray, name: str, scale: int, min_side: int) -> None:
    """Raise ImageError for an image whose reduction has a side below `min_side` pixels."""
    height, width = pixels.shape[:2]
    if min(height, width) < scale * min_side:
        raise ImageError(
            "too_small",
            f"{name} is {width} x {height}; at scale {scale} a crop of {min_side} px needs "
            f"{scale * min_side} px a side: lower crop, or remove the image",
        )


def make_pair(key: str, pixels: np.ndarray, scale: int) -> Pair:
    """Return the pair of an (H, W, 3) uint8 image, cut at the bottom and right to multiples of `scale`."""
    height, width = (side // scale * scale for side in pixels.shape[:2])
    clean = np.ascontiguousarray(pixels[:height, :width])
    return Pair(key, clean, imresize(clean, 1 / scale) if scale > 1 else clean)


def degrade_validation(valid: list[Pair], degradation: Degradation, damage: Any = None) -> list[Pair]:
    """Degrade validation pairs as training crops are, rounded to 8 bits; always the same, by fixed seeds."""
    if degradation.exact:
        return valid
    degraded = []
    for number, pair in enumerate(valid):
        small, clean = degradation.pair(pair.clean, pair.scale, np.random.default_rng(number), damage)
        small = np.clip(np.rint(small), 0, 255).astype(np.uint8)
        degraded.append(replace(pair, small=small, clean=clean))
    return degraded
