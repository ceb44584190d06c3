"""The exact bicubic reduction of MATLAB, which the benchmarks of super-resolution undo."""

import numpy as np

from imgtx.degradations.base import Degradation
from imgtx.imageops.resize import imresize


def _pair(
    clean: np.ndarray, scale: int, rng: np.random.Generator, damage: None
) -> tuple[np.ndarray, np.ndarray]:
    return imresize(clean, 1 / scale), clean


BICUBIC = Degradation(
    name="bicubic",
    task="super-resolution",
    scales=(2, 3, 4),
    card="bicubic reduction undone on clean photos. Not trained on JPEG damage or noise.",
    make=_pair,
    protocol="shrunk by MATLAB's bicubic imresize to uint8",
    exact=True,
    grey=True,
)
