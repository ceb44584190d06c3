"""Tell the quality that a JPEG was saved with from its quantisation table.

The file does not state it. Programs of the Independent JPEG Group multiply one table by a factor for each quality
(https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table K.1; `jpeg_quality_scaling` of libjpeg). Cameras and Photoshop have
tables of their own: for them it is the quality at which libjpeg divides as much.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache

# Of brightness, at quality 50.
_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


def quality_of(table: Sequence[int]) -> int:
    """Return the quality, 1 to 100, of a file with this quantisation table for brightness; 0 for an empty one.

    table: 64 divisors in any order.
    """
    if not table:
        return 0
    sums = _sums()
    # They fall as quality rises: the best quality whose divisors are not smaller.
    place = bisect_left(sums, sum(table))
    if place == len(sums):
        return 1
    nearest = min((place - 1, place), key=lambda at: abs(sums[at] - sum(table))) if place else 0
    return 100 - nearest


@cache
def _sums() -> list[int]:
    """Return the sum of libjpeg's table for each quality from 100 down to 1."""
    factors = [200 - 2 * quality if quality >= 50 else 5000 // quality for quality in range(100, 0, -1)]
    return [sum(min(max((value * f + 50) // 100, 1), 255) for value in _TABLE) for f in factors]
