"""How noisy an image is, estimated from the image alone (numpy only)."""

import numpy as np

# Pixels a side of the middle that is looked at: 3 ms.
MAX_SIDE = 512


def noise_level(pixels: np.ndarray) -> float:
    """Estimate the standard deviation of an image's noise in levels of 255, the mean of its channels.

    `pixels` is (H, W, C) uint8 or uint16; the estimate is 0 below 2 x 2 pixels. It is the median of the absolute
    diagonal details of a Haar transform over 0.6745, the median for a standard normal: edges, which are few, count
    little. Fine texture counts as noise: clean photos give 0 to 3. What JPEG or a resize smoothed is not seen.

    Source: Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81(3), 1994.
    """
    height, width = (min(side, MAX_SIDE) // 2 * 2 for side in pixels.shape[:2])
    if not (height and width):
        return 0.0
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    part = pixels[top : top + height, left : left + width].astype(np.float32)
    diagonal = (part[::2, ::2] - part[1::2, ::2] - part[::2, 1::2] + part[1::2, 1::2]) / 2
    medians = np.median(np.abs(diagonal), axis=(0, 1))
    return float(medians.mean() / 0.6745 * 255 / np.iinfo(pixels.dtype).max)
