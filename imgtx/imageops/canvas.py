"""What a model that makes images from text begins with."""

import numpy as np

from imgtx.errors import UsageError
from imgtx.imageops.resize import imresize


def start_canvas(image: np.ndarray | None, height: int, width: int) -> np.ndarray:
    """Return black, or the middle of a start picture: (height, width, 3) uint8.

    image: (H, W, 3) uint8; resized until it covers the canvas, in proportion. Raises UsageError for another array.
    """
    if image is None:
        return np.zeros((height, width, 3), np.uint8)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UsageError(
            f"a start picture of shape {image.shape} and {image.dtype}: expected (height, width, 3) uint8; convert it"
        )
    scale = max(height / image.shape[0], width / image.shape[1])
    covering = max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale))
    if covering != image.shape[:2]:
        image = imresize(image, size=covering)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])
