"""EXIF blocks, changed in place and never rewritten.

Why by hand: maker notes hold offsets that a rewritten block breaks, and Pillow rewrites blocks; piexif, which edited
them, has had no release since 2019.

A block (the TIFF structure, without the `Exif\\0\\0` that JPEG puts before it) is carried byte for byte. Only what the
pipeline makes untrue is changed: the orientation once the pixels are turned, the thumbnail, the dimensions, resolutions
and positions in pixels. A malformed block counts as none.
"""

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple, TypeVar

from imgtx.codecs.metadata.density import Density, as_rational, density_of

PREFIX = b"Exif\0\0"
_WIDTH, _HEIGHT, _ORIENTATION, _EXIF_IFD = 0x0100, 0x0101, 0x0112, 0x8769
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_RESOLUTION, _RESOLUTION_UNIT = (0x011A, 0x011B), 0x0128
# Pixels of the sensor per unit: enlarged pixels are as many more on the same sensor.
_FOCAL_PLANE = (0xA20E, 0xA20F)
# Centre x, y of the main subject, and its diameter or width and height.
_SUBJECT_AREA, _SUBJECT_LOCATION = 0x9214, 0xA214
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_UNITS = {1: "", 2: "inch", 3: "cm"}


T = TypeVar("T", int, float)


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


def density(block: bytes) -> Density | None:
    """Return the resolution that the first directory states, as stored; None if it states none."""
    if not block:
        return None
    try:
        first = _first(block)
        x, y = (_rational(block, first, tag) for tag in _RESOLUTION)
        unit = _get(block, first, _RESOLUTION_UNIT)
    except struct.error:
        return None
    # Inches where no unit is stated (EXIF 2.32, 4.6.4).
    return density_of(x, y, _UNITS.get(2 if unit is None else unit, ""))


def of_density(density: Density) -> bytes:
    """Return a block that states a resolution and nothing else."""
    density = density.per("cm") if density.unit == "metre" else density
    unit = next(number for number, name in _UNITS.items() if name == density.unit)
    numbers = struct.pack("<4I", *as_rational(density.x), *as_rational(density.y))
    # Behind a header of 8 bytes and a directory of three entries.
    at = 8 + 2 + 3 * 12 + 4
    entries = [
        (_RESOLUTION[0], _RATIONAL, at),
        (_RESOLUTION[1], _RATIONAL, at + 8),
        (_RESOLUTION_UNIT, _SHORT, unit),
    ]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, 3) + directory + bytes(4) + numbers


def turned(block: bytes, orientation: int, height: int, width: int) -> bytes:
    """Return the block for pixels turned from `orientation` 1..8 to upright; height and width are those as stored."""
    if not block or orientation == 1:
        return block
    out = bytearray(block)
    try:
        for directory in _directories(out):
            if orientation >= 5:
                _swap(out, directory, _RESOLUTION)
                _swap(out, directory, _FOCAL_PLANE)
            for at, count in _subjects(out, directory):
                order = byte_order(out)
                x, y, *extent = struct.unpack_from(f"{order}{count}H", out, at)
                extent = extent[::-1] if orientation >= 5 else extent
                x, y = (
                    0xFFFF & max(0, side) for side in turned_point(x, y, height - 1, width - 1, orientation)
                )
                struct.pack_into(f"{order}{count}H", out, at, x, y, *extent)
    except struct.error:
        return b""
    return bytes(out)


def turned_point(x: T, y: T, height: T, width: T, orientation: int) -> tuple[T, T]:
    """Return where a point of a stored picture is upright; height and width are its largest y and x."""
    if orientation in (2, 3, 7, 8):
        x = width - x
    if orientation in (3, 4, 6, 7):
        y = height - y
    return (y, x) if orientation >= 5 else (x, y)


def scaled(block: bytes, x: Fraction, y: Fraction) -> bytes:
    """Return the block for a picture that is `x` times as wide and `y` times as high, on the same paper and sensor."""
    if not block or x == y == 1:
        return block
    out = bytearray(block)
    order = byte_order(out)
    # By where they are: both directions may share one number.
    factors: dict[int, Fraction] = {}
    areas: dict[int, int] = {}
    try:
        for directory in _directories(out):
            areas |= dict(_subjects(out, directory))
            for entry in _entries(out, directory):
                for across, down in (_RESOLUTION, _FOCAL_PLANE):
                    if entry.tag in (across, down) and (at := _place(out, entry)):
                        factors[at] = x if entry.tag == across else y
        for at, factor in factors.items():
            number, parts = struct.unpack_from(order + "II", out, at)
            if number and parts:
                struct.pack_into(order + "II", out, at, *_times(number, parts, factor))
        for at, count in areas.items():
            values = struct.unpack_from(f"{order}{count}H", out, at)
            made = (min(0xFFFF, round(value * (x, y)[place % 2])) for place, value in enumerate(values))
            struct.pack_into(f"{order}{count}H", out, at, *made)
    except struct.error:
        return b""
    return bytes(out)


def _times(number: int, parts: int, factor: Fraction) -> tuple[int, int]:
    """Return number / parts * factor as a rational, with the same denominator if it can be."""
    whole = number * factor
    if whole.denominator == 1 and whole < 2**32:
        return whole.numerator, parts
    return as_rational(whole / parts)


def _directories(block: bytes | bytearray) -> list[int]:
    """Return where the first directory and EXIF's own are."""
    first = _first(block)
    own = _get(block, first, _EXIF_IFD)
    return [first, own] if own else [first]


def _rational(block: bytes | bytearray, directory: int, tag: int) -> Fraction | None:
    for entry in _entries(block, directory):
        if entry.tag == tag and (at := _place(block, entry)):
            number, parts = struct.unpack_from(byte_order(block) + "II", block, at)
            return Fraction(number, parts) if parts else None
    return None


def _place(block: bytes | bytearray, entry: _Entry) -> int:
    """Return where the single rational of an entry is; 0 if it is none or beyond the block."""
    if entry.type != _RATIONAL or entry.values != 1:
        return 0
    (at,) = struct.unpack_from(byte_order(block) + "I", block, entry.at + 8)
    return at if 8 <= at <= len(block) - 8 else 0


def _subjects(block: bytes | bytearray, directory: int) -> Iterator[tuple[int, int]]:
    """Yield (place, count) of the 16-bit numbers that say in pixels where the main subject is."""
    for entry in _entries(block, directory):
        tagged = entry.tag in (_SUBJECT_AREA, _SUBJECT_LOCATION)
        if tagged and entry.type == _SHORT and 2 <= entry.values <= 4:
            at = entry.at + 8
            if entry.values > 2:
                (at,) = struct.unpack_from(byte_order(block) + "I", block, at)
            if at + 2 * entry.values <= len(block):
                yield at, entry.values


def _swap(block: bytearray, directory: int, tags: tuple[int, int]) -> None:
    """Exchange the numbers of two tags, if both are there."""
    places = [
        place for entry in _entries(block, directory) if entry.tag in tags and (place := _place(block, entry))
    ]
    if len(places) == 2:
        one, other = (bytes(block[at : at + 8]) for at in places)
        block[places[0] : places[0] + 8], block[places[1] : places[1] + 8] = other, one


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
