"""CIE L*a*b*, by which some TIFFs store their colours, to sRGB. https://www.color.org/specification/ICC.1-2022-05.pdf

The white is that of ICC profiles, D50, as Photoshop and libtiff take it; what sRGB does not have is clipped.
"""

import numpy as np

from imgtx.codecs.srgb import ICC_WHITE, srgb_light, srgb_light_of_xyz

# Forms (`Header.form`) by what TIFF's tag 262 says: a* and b* are signed, or have the middle added.
SIGNED, OFFSET = "cielab", "icclab"
LAB_FORMS = {8: SIGNED, 9: OFFSET}
# L* of 100 is the highest level; in ICC's 16 bits it is 255 of 256.
_WHITE = {(SIGNED, 8): 255, (SIGNED, 16): 65535, (OFFSET, 8): 255, (OFFSET, 16): 65280}
# Pixels that are converted together: they take some hundred bytes each.
_TOGETHER = 2**17


def lab_to_srgb(samples: np.ndarray, form: str) -> np.ndarray:
    """Convert L*a*b* as stored, (rows, width, 3) uint8 or uint16, to sRGB of the same shape and dtype.

    Without matrix products and powers of pixels, so that a pixel comes out the same in strips of any size.
    """
    depth = samples.itemsize * 8
    top = np.iinfo(samples.dtype).max
    levels = np.arange(top + 1)
    lightness = levels * (100 / _WHITE[form, depth])
    signed = levels - (top + 1) * (levels > top // 2) if form == SIGNED else levels - (top + 1) // 2
    chroma = signed / (1 if depth == 8 else 256)
    # The light from which on a level is rounded up.
    steps = srgb_light((np.arange(top) + 0.5) / top)
    tables = (lightness + 16) / 116, chroma / 500, chroma / 200
    matrix = srgb_light_of_xyz(ICC_WHITE) * ICC_WHITE
    made = np.empty(samples.shape, samples.dtype)
    rows = max(1, _TOGETHER // samples.shape[1])
    for first in range(0, len(samples), rows):
        stored = samples[first : first + rows]
        height, red, blue = (table[stored[:, :, band]] for band, table in enumerate(tables))
        x, y, z = _light(height + red), _light(height), _light(height - blue)
        for band, (of_x, of_y, of_z) in enumerate(matrix):
            light = x * of_x + y * of_y + z * of_z
            made[first : first + rows, :, band] = np.searchsorted(steps, light, side="right")
    return made


def _light(root: np.ndarray) -> np.ndarray:
    """Return the share of white's X, Y or Z: the cube, and a line near black."""
    return np.where(root > 6 / 29, root * root * root, (root - 4 / 29) * (108 / 841))
