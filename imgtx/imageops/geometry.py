"""Rectangles of pixels."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """A rectangle in pixels: of the padded image, of the image or, where it says so, of the output."""

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
