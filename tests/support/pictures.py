"""Images that the codec tests make and compare."""

import numpy as np

from imgtx.codecs import Picture

MAX_PIXELS = 50_000_000


def picture(
    pixels: np.ndarray, alpha: np.ndarray | None = None, icc: bytes = b"", block: bytes = b""
) -> Picture:
    return Picture(pixels, alpha, icc, block, "png", ())


def assert_equal(got: Picture, wanted: Picture) -> None:
    assert got.pixels.dtype == wanted.pixels.dtype
    np.testing.assert_array_equal(got.pixels, wanted.pixels)
    assert (got.alpha is None) == (wanted.alpha is None)
    if got.alpha is not None and wanted.alpha is not None:
        np.testing.assert_array_equal(got.alpha, wanted.alpha)
