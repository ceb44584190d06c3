"""What is known of an encoded image before a pixel is decoded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Header:
    """An encoded image before decoding. `height` and `width` are pixels as displayed (EXIF orientation
    applied).

    `channels` is 1 or 3 and `depth` 8 or 16 bits, as `decode` will deliver them; `alpha` says whether it
    delivers an alpha plane too. `frames` above 1 is an animation or several pages. `orientation` is EXIF's
    1..8. `form` is the stored form: 1bit, lowbit, grey, palette, rgb, cmyk.
    """

    format: str
    height: int
    width: int
    channels: int
    depth: int
    alpha: bool
    frames: int
    orientation: int
    form: str

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) in pixels as stored, before orientation."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


@dataclass(frozen=True)
class Facts:
    """A header with what must survive: `icc` (b"" or a profile), `exif` (bare block), notes of what will not.

    `end` is the byte after the last pixel byte where the format tells, else 0: a shorter file is truncated.
    `premultiplied` colours were multiplied by their alpha. `deflated` is (offset, length) of each zlib stream of
    a TIFF.
    """

    header: Header
    icc: bytes = b""
    exif: bytes = b""
    notes: tuple[str, ...] = ()
    end: int = 0
    premultiplied: bool = False
    deflated: tuple[tuple[int, int], ...] = ()


def displayed(height: int, width: int, turned: int) -> tuple[int, int]:
    """(height, width) of the stored size as EXIF orientation `turned` shows it."""
    return (width, height) if turned >= 5 else (height, width)
