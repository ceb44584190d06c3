"""Rectangles of pixels."""

from collections.abc import Iterator
from dataclasses import dataclass

# Pixels a side of the squares that a whole image is worked on in.
SQUARE = 1024


@dataclass(frozen=True)
class Tile:
    """A rectangle in pixels; whose (the image's, the padded image's, the output's) is said where it is used."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width


def squares(height: int, width: int) -> Iterator[Tile]:
    """Cut height x width pixels into squares of SQUARE, row by row; the last of each row and column are smaller."""
    for top in range(0, height, SQUARE):
        for left in range(0, width, SQUARE):
            yield Tile(top, left, min(SQUARE, height - top), min(SQUARE, width - left))
