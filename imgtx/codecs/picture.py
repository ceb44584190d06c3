"""Pictures: as a file describes them (`Header`, `Facts`), decoded (`Picture`), and what travels with them (`Carry`)."""

import json
import struct
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from imgtx.codecs.metadata import NO_METADATA, Metadata, pack_metadata, unpack_metadata

# Bytes of one profile or EXIF block; a larger one is an attack or an accident.
METADATA_LIMIT = 16 * 2**20

# Of a packed `Carry`: its channels, and the length of each other part.
_LENGTHS = struct.Struct("<10I")


@dataclass(frozen=True)
class Header:
    """An encoded image before decoding.

    `height` and `width` are pixels as displayed (EXIF orientation applied). `channels` is 1 or 3 and `depth` 8 or
    16 bits, as `decode` delivers them; `alpha` says whether it also delivers an alpha plane. `frames` above 1 is
    an animation or several pages. `orientation` is EXIF's 1..8. `form` is the stored form: 1bit, lowbit, grey,
    palette, rgb, cmyk, cielab, icclab (`imgtx.codecs.lab`). `page` and `sub` say which of several pictures in the
    file it is (`imgtx.codecs.formats.tiff_pages`).
    `quality` is that of a JPEG as libjpeg counts it, 1 to 100, or of a WebP in the same measure, and 0 where only the
    loss is known; a lossless file has 100.
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
    page: int = 0
    sub: int = -1
    quality: int = 100

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) in pixels as stored, before orientation."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


@dataclass(frozen=True)
class Facts:
    """A header, the metadata that must survive, and notes of what will not.

    `icc` is a profile or b"", `exif` a bare block (`imgtx.codecs.metadata.exif.bare`) or b"", `notes` keys of `NOTES`.
    `end` is the byte after the last pixel byte where the format states it, else 0: a shorter file is truncated.
    `colour` is the PNG chunks that decide how the pixels display (`imgtx.codecs.colour`), whole, or b"".
    `premultiplied` means that the stored colours were multiplied by their alpha. `deflated` is the (offset,
    length) of each zlib stream of a TIFF. `metadata` is as stored: its `size` and `orientation` are not set yet. `tail`
    is what the file lacks at its end and a decoder needs, and `cut` says
    that its end is missing where a decoder needs none. `foreign` says that the decoder takes it only as
    `Format.rewrite` writes it.
    """

    header: Header
    icc: bytes = b""
    exif: bytes = b""
    notes: tuple[str, ...] = ()
    end: int = 0
    premultiplied: bool = False
    colour: bytes = b""
    deflated: tuple[tuple[int, int], ...] = ()
    metadata: Metadata = NO_METADATA
    tail: bytes = b""
    cut: bool = False
    foreign: bool = False


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright.

    `pixels` (height, width, 1 or 3) and `alpha` (height, width) or None, both uint8 in [0, 255] or both uint16 in
    [0, 65535]; alpha is straight. `icc` is the profile of `pixels` or b"" (then sRGB or grey by convention), `exif`
    a bare block or b"", `format` that of the source, `notes` keys of `NOTES`. `texts` are (keyword, text) of a made
    picture, for formats that can hold them: keywords of 1 to 79 ASCII characters. `colour` is as in
    `Facts`. `metadata` describes the source, whatever size the pixels have become. `missing` is the share of rows that
    a truncated file lacks (`imgtx.codecs.recovery`).
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    icc: bytes
    exif: bytes
    format: str
    notes: tuple[str, ...]
    texts: tuple[tuple[str, str], ...] = ()
    colour: bytes = b""
    metadata: Metadata = NO_METADATA
    missing: float = 0.0


@dataclass(frozen=True)
class Carry:
    """What travels beside the pixels through the pipeline; fields as in `Picture`.

    `channels` is the picture's own number: grey that is stored in three channels goes through a model in one.
    `hidden` is `imgtx.imageops.hidden.hidden_part`, or b"".
    """

    icc: bytes
    exif: bytes
    format: str
    channels: int
    hidden: bytes = b""
    colour: bytes = b""
    texts: tuple[tuple[str, str], ...] = ()
    metadata: Metadata = NO_METADATA


def displayed(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Return the stored (height, width) as EXIF `orientation` displays it."""
    return (width, height) if orientation >= 5 else (height, width)


def dropped(**lost: bool) -> tuple[str, ...]:
    """Return the note `<name>-dropped` of each loss that is true, in the order given; `_` in a name becomes `-`."""
    return tuple(f"{name.replace('_', '-')}-dropped" for name, is_lost in lost.items() if is_lost)


def carry_of(picture: Picture, hidden: bytes = b"") -> Carry:
    """Return what travels beside a picture's pixels."""
    return Carry(
        picture.icc,
        picture.exif,
        picture.format,
        picture.pixels.shape[2],
        hidden,
        picture.colour,
        picture.texts,
        picture.metadata,
    )


def pack_carry(carry: Carry) -> bytes:
    """Pack a `Carry` into bytes for the column of that name; the inverse is `unpack_carry`."""
    texts = json.dumps(carry.texts).encode() if carry.texts else b""
    parts = [carry.format.encode(), carry.icc, carry.exif, carry.hidden, carry.colour, texts]
    parts += pack_metadata(carry.metadata)
    return _LENGTHS.pack(carry.channels, *map(len, parts)) + b"".join(parts)


def unpack_carry(packed: bytes) -> Carry:
    """Unpack the bytes of `pack_carry`. Raises ValueError if their length is not the one they state."""
    channels, *lengths = _LENGTHS.unpack_from(packed)
    ends = [_LENGTHS.size + sum(lengths[:number]) for number in range(len(lengths) + 1)]
    if len(packed) != ends[-1]:
        raise ValueError(f"a carry of {len(packed)} bytes; its lengths ask for {ends[-1]}")
    parts = [bytes(packed[start:end]) for start, end in pairwise(ends)]
    name, icc, block, hidden, colour, texts, *metadata = parts
    known = tuple((keyword, text) for keyword, text in json.loads(texts)) if texts else ()
    return Carry(icc, block, name.decode(), channels, hidden, colour, known, unpack_metadata(*metadata))
