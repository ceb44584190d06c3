"""The boxes of ISO's base media format, which JPEG 2000, JPEG XL, AVIF and HEIC are stored in. ISO/IEC 14496-12, 4.2

A box is its length, its name and its body; a length of 0 reaches to the end, one of 1 is followed by one of 64 bits.
"""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

# A file of more boxes on one level is no picture.
_MOST = 10_000


class Box(NamedTuple):
    """A box of a file: its name, where its body begins, and how long that is."""

    name: bytes
    at: int
    length: int


def boxes_of_file(file: BinaryIO) -> Iterator[Box]:
    """Yield the outermost boxes. Raises EOFError for one that reaches beyond the file's end."""
    size = file.seek(0, os.SEEK_END)
    at = 0
    for _ in range(_MOST):
        if size - at < 8:
            return
        file.seek(at)
        box = _box(file.read(16), at, size)
        if box.at + box.length > size:
            raise EOFError(f"its {box.name!r} box ends at byte {box.at + box.length} of {size}")
        yield box
        at = box.at + box.length


def boxes(data: bytes, at: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield the boxes within a body. Raises EOFError for one that reaches beyond its end."""
    end = len(data) if end is None else end
    for _ in range(_MOST):
        if end - at < 8:
            return
        box = _box(data[at : at + 16], at, end)
        if box.at + box.length > end:
            raise EOFError(f"its {box.name!r} box ends at byte {box.at + box.length} of {end}")
        yield box
        at = box.at + box.length


def _box(start: bytes, at: int, end: int) -> Box:
    length, name = struct.unpack_from(">I4s", start)
    head = 8
    if length == 1:
        (length,) = struct.unpack_from(">Q", start, 8)
        head = 16
    elif length == 0:
        length = end - at
    if length < head:
        raise ValueError(f"a {name!r} box of {length} bytes")
    return Box(name, at + head, length - head)
