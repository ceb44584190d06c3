"""Rectangles of pixels."""

from dataclasses import dataclass


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
