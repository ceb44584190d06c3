"""ICO: the largest of an icon's pictures. https://learn.microsoft.com/previous-versions/ms997538(v=msdn.10)

Each picture is a PNG or a bitmap with a mask. Those of an icon are one drawing at several sizes and depths: the
largest, and of these the deepest, is taken.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

import imgtx.codecs.formats.png as png
from imgtx.codecs.format import Format
from imgtx.codecs.picture import Facts, Header
from imgtx.errors import ImageError

_SIGNATURE = b"\0\0\1\0"
_ENTRY = struct.Struct("<BBBBHHII")
# The header of a bitmap: its length, width, twice its height, planes, bits.
_BITMAP = struct.Struct("<IiiHH")


@dataclass(frozen=True)
class _Entry:
    """A picture of the file: its size in pixels, bits a pixel, and the bytes that it takes."""

    width: int
    height: int
    bits: int
    offset: int
    length: int


def recognise(start: bytes) -> bool:
    return start.startswith(_SIGNATURE) and start[4:6] != b"\0\0" and len(start) >= 22 and start[9] == 0


def read_facts(file: BinaryIO) -> Facts:
    """Read the directory and the header of the picture that is taken."""
    entries = _entries(file)
    best = _best(entries)
    file.seek(best.offset)
    data = file.read(best.length)
    notes = ("largest-taken",) if len(entries) > 1 else ()
    end = best.offset + best.length
    if png.recognise(data):
        facts = png.read_facts(io.BytesIO(data))
        header = replace(facts.header, format="ico")
        return replace(facts, header=header, notes=(*notes, *facts.notes), end=end)
    if len(data) < _BITMAP.size:
        raise EOFError("no bitmap header")
    length, width, double_height, _, bits = _BITMAP.unpack_from(data)
    if length != 40 or bits not in (1, 4, 8, 16, 24, 32) or width < 1 or double_height < 2:
        raise ImageError(
            "unsupported",
            f"an icon with a bitmap of {bits} bits and a header of {length} bytes; imgtx reads those of 40: convert it",
        )
    header = Header("ico", double_height // 2, width, 3, 8, True, frames=1, orientation=1, form="rgb")
    return Facts(header, notes=notes, end=end)


def _entries(file: BinaryIO) -> list[_Entry]:
    file.seek(0)
    (count,) = struct.unpack("<4xH", file.read(6))
    made = []
    for fields in _ENTRY.iter_unpack(file.read(count * _ENTRY.size)):
        width, height, colours, _, _, bits, length, offset = fields
        made.append(_Entry(width or 256, height or 256, bits or (8 if colours else 0), offset, length))
    if not made:
        raise EOFError("no entries")
    return made


def _best(entries: list[_Entry]) -> _Entry:
    return max(entries, key=lambda entry: (entry.width * entry.height, entry.bits))


def check(file: BinaryIO, facts: Facts) -> None:
    """Check the checksums of a PNG within."""
    data = _taken(file)
    if png.recognise(data):
        png.check(io.BytesIO(data), facts)


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode the picture that is taken: (height, width, bands) as stored, a bitmap with its mask as alpha."""
    taken = _taken(io.BytesIO(data))
    if png.recognise(taken):
        return png.FORMAT.samples(taken, header)
    from PIL.IcoImagePlugin import IcoFile

    # An icon of this picture alone, so that Pillow chooses no other.
    height, width = header.stored_size
    bits = _BITMAP.unpack_from(taken)[4]
    entry = _ENTRY.pack(width & 255, height & 255, 0, 0, 1, bits, len(taken), 6 + _ENTRY.size)
    icon = IcoFile(io.BytesIO(_SIGNATURE + b"\1\0" + entry + taken))
    return np.asarray(icon.frame(0).convert("RGBA"))


def strips(path: Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a file as one strip, in memory."""
    yield 0, samples(path.read_bytes(), header)


def _taken(file: BinaryIO) -> bytes:
    best = _best(_entries(file))
    file.seek(best.offset)
    return file.read(best.length)


FORMAT = Format(
    name="ico",
    title="ICO",
    suffixes=(".ico",),
    reads="the largest of its pictures",
    recognise=recognise,
    read_facts=read_facts,
    check=check,
    samples=samples,
    strips=strips,
    same="png",
)
