"""Grey pictures that are stored as three equal channels, as most software saves black-and-white photos (numpy only)."""

import numpy as np

# Rows that are compared together: pictures in colour are told by their first rows.
_ROWS = 64


class GreyTest:
    """Says of a picture whether its channels are equal wherever it is visible, from its pieces in any order.

    Of a picture that is invisible everywhere, all colours count.
    """

    def __init__(self) -> None:
        self._seen, self._seen_equal, self._all_equal = False, True, True

    def add(self, pixels: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Add a piece: (H, W, 3), and (H, W) with 0 where it is invisible."""
        for top in range(0, len(pixels), _ROWS):
            if self.coloured:
                return
            rows = pixels[top : top + _ROWS]
            equal = (rows[:, :, 0] == rows[:, :, 1]) & (rows[:, :, 1] == rows[:, :, 2])
            self._all_equal &= bool(equal.all())
            if weights is None:
                self._seen, self._seen_equal = True, self._seen_equal and bool(equal.all())
            else:
                visible = weights[top : top + _ROWS] > 0
                self._seen |= bool(visible.any())
                self._seen_equal &= bool((equal | ~visible).all())

    @property
    def coloured(self) -> bool:
        """Whether a visible colour was found: no further piece makes the picture grey."""
        return not self._seen_equal

    @property
    def grey(self) -> bool:
        return self._seen_equal if self._seen else self._all_equal


def is_grey(pixels: np.ndarray, weights: np.ndarray | None = None) -> bool:
    """Return whether (H, W, 3) pixels are grey where `weights`, (H, W), are above 0: everywhere without weights."""
    test = GreyTest()
    test.add(pixels, weights)
    return test.grey


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return grey (H, W, 1) as three equal channels."""
    return np.repeat(pixels, 3, axis=2)
