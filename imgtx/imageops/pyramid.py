"""Halve and double an image: the steps of an image pyramid (numpy only). Arrays are (H, W, C) float32."""

import numpy as np


def halved(values: np.ndarray) -> np.ndarray:
    """Return the sums of each 2 x 2 pixels; beyond an odd side there are zeros."""
    height, width = values.shape[:2]
    values = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    return values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]


def twice(values: np.ndarray) -> np.ndarray:
    """Double the size by linear interpolation, edges repeated."""
    for axis in (0, 1):
        values = np.moveaxis(values, axis, 0)
        before = np.concatenate([values[:1], values[:-1]])
        after = np.concatenate([values[1:], values[-1:]])
        both = np.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], axis=1)
        values = np.moveaxis(both.reshape(-1, *values.shape[1:]), 0, axis)
    return values
