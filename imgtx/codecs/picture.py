"""Pictures: as a file describes them (`Header`, `Facts`), decoded (`Picture`), and what travels with them (`Carry`)."""

import json
import struct
from dataclasses import dataclass

import numpy as np

# Bytes of one profile or EXIF block; a larger one is an attack or an accident.
METADATA_LIMIT = 16 * 2**20


@dataclass(frozen=True)
class Header:
    """An encoded image before decoding.

    `height` and `width` are pixels as displayed (EXIF orientation applied). `channels` is 1 or 3 and `depth` 8 or
    16 bits, as `decode` delivers them; `alpha` says whether it also delivers an alpha plane. `frames` above 1 is
    an animation or several pages. `orientation` is EXIF's 1..8. `form` is the stored form: 1bit, lowbit, grey,
    palette, rgb, cmyk.
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
    """A header, the metadata that must survive, and notes of what will not.

    `icc` is a profile or b"", `exif` a bare block (`imgtx.codecs.exif.bare`) or b"", `notes` keys of `NOTES`.
    `end` is the byte after the last pixel byte where the format states it, else 0: a shorter file is truncated.
    `premultiplied` means that the stored colours were multiplied by their alpha. `deflated` is the (offset,
    length) of each zlib stream of a TIFF.
    """

    header: Header
    icc: bytes = b""
    exif: bytes = b""
    notes: tuple[str, ...] = ()
    end: int = 0
    premultiplied: bool = False
    deflated: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright.

    `pixels` (height, width, 1 or 3) and `alpha` (height, width) or None, both uint8 in [0, 255] or both uint16 in
    [0, 65535]; alpha is straight. `icc` is the profile of `pixels` or b"" (then sRGB or grey by convention), `exif`
    a bare block or b"", `format` that of the source, `notes` keys of `NOTES`. `texts` are (keyword, text) of a made
    picture, for formats that can hold them: keywords of 1 to 79 ASCII characters.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    icc: bytes
    exif: bytes
    format: str
    notes: tuple[str, ...]
    texts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Carry:
    """What travels beside the pixels through the pipeline; fields as in `Picture`."""

    icc: bytes
    exif: bytes
    format: str
    texts: tuple[tuple[str, str], ...] = ()


def displayed(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Return the stored (height, width) as EXIF `orientation` displays it."""
    return (width, height) if orientation >= 5 else (height, width)


def dropped(**lost: bool) -> tuple[str, ...]:
    """Return the note `<name>-dropped` of each loss that is true, in the order given; `_` in a name becomes `-`."""
    return tuple(f"{name.replace('_', '-')}-dropped" for name, is_lost in lost.items() if is_lost)


def pack_carry(picture: Picture) -> bytes:
    """Pack a picture's `Carry` into bytes for the `carry` column; the inverse is `unpack_carry`."""
    name = picture.format.encode()
    texts = json.dumps(picture.texts).encode() if picture.texts else b""
    lengths = struct.pack("<IIII", len(name), len(picture.icc), len(picture.exif), len(texts))
    return lengths + name + picture.icc + picture.exif + texts


def unpack_carry(packed: bytes) -> Carry:
    """Unpack the bytes of `pack_carry`. Raises ValueError if their length is not the one they state."""
    name, icc, block, texts = struct.unpack_from("<IIII", packed)
    if len(packed) != 16 + name + icc + block + texts:
        raise ValueError(
            f"a carry of {len(packed)} bytes; its lengths ask for {16 + name + icc + block + texts}"
        )
    body = bytes(packed[16:])
    end = name + icc + block
    known = tuple((keyword, text) for keyword, text in json.loads(body[end:])) if texts else ()
    return Carry(body[name : name + icc], body[name + icc : end], body[:name].decode(), known)
