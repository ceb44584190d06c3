"""Every tie of every level is rounded up, as in MATLAB, and not to the even neighbour."""

import numpy as np
import pytest

from imgtx.imageops.resize import imresize


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("across", [False, True], ids=["columns", "rows"])
def test_ties_are_rounded_up(dtype, across):
    """An edge from `level` to `level + 1` amid the eight taps of one output gives exactly `level` and a half."""
    level = np.arange(0, np.iinfo(dtype).max, 1 if dtype == np.uint8 else 257)
    image = np.repeat(level[:, None], 16, axis=1)
    image[:, 7:] += 1
    image, size = image.astype(dtype), (len(level), 8)
    if across:
        image, size = np.ascontiguousarray(image.T), size[::-1]
    exact = imresize(image.astype(np.float64), size=size)
    made = imresize(image, size=size)
    if across:
        exact, made = exact.T, made.T
    np.testing.assert_array_equal(exact[:, 3], level + 0.5)
    np.testing.assert_array_equal(made[:, 3], level + 1)


def test_ties_are_rounded_up_in_both_passes():
    """A tie of the first pass is a tie of the second: 0.5 becomes 1, and then (1 + 0) / 2 becomes 1."""
    image = np.zeros((16, 16), np.uint8)
    image[7:, 7:] = 1
    assert imresize(image, 0.5)[3, 3] == 1
