"""Run the baselines of restoring models: classical methods of OpenCV and scikit-image, where they are installed.

Each is given more than our model: noise filters get the noise's strength. BM3D's package may not be used
commercially, so it is not a dependency: its published rows replace it (`jobs.evaluation.restoration`).
"""

import importlib
from collections.abc import Callable
from types import ModuleType

import numpy as np

INSTALL = "pip install opencv-python-headless scikit-image"
# Pixels around a hole that OpenCV's inpainting looks at.
RADIUS = 3
# Of the noise's standard deviation, for fast non-local means: between the best of 0.5 to 1.3 on photos (LOG.md).
STRENGTH = 0.6

Filler = Callable[[np.ndarray, np.ndarray], np.ndarray]


def imported(name: str) -> ModuleType | None:
    """Return the library, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def non_local_means(noisy: np.ndarray, strength: float) -> np.ndarray | None:
    """Denoise (H, W, 3) uint8 by OpenCV's fast non-local means with default windows; None without OpenCV."""
    cv2 = imported("cv2")
    if cv2 is None:
        return None
    return cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(noisy), None, strength, strength)


def fillers() -> dict[str, Filler]:
    """Name -> from (H, W, 3) uint8 and a hole, (H, W) bool, to the image with it filled: those that are installed."""
    found: dict[str, Filler] = {}
    if (cv2 := imported("cv2")) is not None:

        def by(method: int) -> Filler:
            return lambda image, hole: cv2.inpaint(image, hole.astype(np.uint8), RADIUS, method)

        found |= {"Telea": by(cv2.INPAINT_TELEA), "Navier-Stokes": by(cv2.INPAINT_NS)}
    if (restoration := imported("skimage.restoration")) is not None:

        def biharmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
            filled = restoration.inpaint_biharmonic(image, hole, channel_axis=-1, split_into_regions=True)
            return np.clip(np.rint(filled * 255), 0, 255).astype(np.uint8)

        found["biharmonic"] = biharmonic
    return found
