"""EXIF blocks, changed in place and never rewritten.

Why by hand: maker notes hold offsets that a rewritten block breaks, and Pillow rewrites blocks; piexif, which edited
them, has had no release since 2019.

A block (the TIFF structure, without the `Exif\\0\\0` that JPEG puts before it) is carried byte for byte. Only what the
pipeline makes untrue is changed: the orientation once the pixels are turned, the thumbnail, the dimensions. A malformed
block counts as none.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

PREFIX = b"Exif\0\0"
_WIDTH, _HEIGHT, _ORIENTATION, _EXIF_IFD = 0x0100, 0x0101, 0x0112, 0x8769
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SHORT, _LONG = 3, 4


class _Entry(NamedTuple):
    """A 12-byte directory entry; `at` is its byte offset in the block, `values` how many it has."""

    at: int
    tag: int
    type: int
    values: int


def bare(block: bytes) -> bytes:
    """Return the block without JPEG's prefix; b"" if it is not a TIFF structure with a readable directory."""
    block = block.removeprefix(PREFIX)
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return b""
    try:
        list(_entries(block, _first(block)))
    except struct.error:
        return b""
    return bytes(block)


def orientation(block: bytes) -> int:
    """Return the orientation, 1..8 as EXIF numbers them; 1 (upright) if absent or out of range."""
    try:
        value = _get(block, _first(block), _ORIENTATION) if block else None
    except struct.error:
        value = None
    return value if value and value <= 8 else 1


def upright(block: bytes) -> bytes:
    """Return the block for pixels that have been turned: orientation 1, no thumbnail of the old picture."""
    if not block:
        return b""
    out = bytearray(block)
    try:
        _set(out, _first(block), _ORIENTATION, 1)
        out = _without_thumbnail(out)
    except struct.error:
        return b""
    return bytes(out)


def resized(block: bytes, height: int, width: int) -> bytes:
    """Return the block with every dimension it states set to `height` x `width` pixels; no new ones are added."""
    if not block:
        return b""
    out = bytearray(block)
    try:
        first = _first(block)
        for directory in (first, _get(block, first, _EXIF_IFD)):
            if directory:
                for tag, value in ((_WIDTH, width), (_HEIGHT, height), (_PIXEL_X, width), (_PIXEL_Y, height)):
                    _set(out, directory, tag, value)
    except struct.error:
        return b""
    return bytes(out)


def first_entries(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, 12 raw bytes) of each entry of the first directory; offsets count from the block's start."""
    if block:
        for entry in _entries(block, _first(block)):
            yield entry.tag, bytes(block[entry.at : entry.at + 12])


def byte_order(block: bytes | bytearray) -> str:
    """Return the `struct` prefix of the block's byte order: "<" or ">"."""
    return ">" if block[:2] == b"MM" else "<"


def _first(block: bytes | bytearray) -> int:
    return struct.unpack_from(byte_order(block) + "I", block, 4)[0]


def _entries(block: bytes | bytearray, directory: int) -> Iterator[_Entry]:
    order = byte_order(block)
    (count,) = struct.unpack_from(order + "H", block, directory)
    struct.unpack_from("12s" * count, block, directory + 2)
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        yield _Entry(at, *struct.unpack_from(order + "HHI", block, at))


def _get(block: bytes | bytearray, directory: int, tag: int) -> int | None:
    order = byte_order(block)
    for entry in _entries(block, directory):
        if entry.tag == tag and entry.values == 1 and entry.type in (_SHORT, _LONG):
            return struct.unpack_from(order + ("H" if entry.type == _SHORT else "I"), block, entry.at + 8)[0]
    return None


def _set(block: bytearray, directory: int, tag: int, value: int) -> None:
    order = byte_order(block)
    for entry in _entries(block, directory):
        if entry.tag == tag and entry.values == 1 and entry.type in (_SHORT, _LONG):
            if value > 0xFFFF or entry.type == _LONG:
                struct.pack_into(order + "HHII", block, entry.at, tag, _LONG, 1, value)
            else:
                struct.pack_into(order + "HHIHH", block, entry.at, tag, _SHORT, 1, value, 0)


def _without_thumbnail(block: bytearray) -> bytearray:
    """Unlink the second directory; cut off the thumbnail's bytes if they end the block, as is usual."""
    order = byte_order(block)
    first = _first(block)
    link = first + 2 + 12 * len(list(_entries(block, first)))
    if link + 4 > len(block):
        return block
    (second,) = struct.unpack_from(order + "I", block, link)
    struct.pack_into(order + "I", block, link, 0)
    if not second:
        return block
    try:
        start, length = (_get(block, second, _THUMBNAIL), _get(block, second, _THUMBNAIL_LENGTH))
    except struct.error:
        return block
    if start and length and second < start < len(block) <= start + length + 1:
        del block[start:]
    return block
