"""Writes TIFF from rows as they come: any height in bounded memory, 8 and 16 bit alike. TIFF 6.0, see tiff.py.

Why not a library's writer: Pillow writes no 16-bit RGB and needs the whole picture, and libvips writes no EXIF into
TIFF. ISA-L deflates at level 1, as for PNG.
"""

import struct
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
from isal import isal_zlib

import imgtx.codecs.metadata.exif as exif
from imgtx.codecs.metadata.density import as_rational
from imgtx.codecs.rows import Raster, regroup, to_bytes

_DEFLATE_LEVEL = 1
# Above this much raw pixel data a TIFF needs 64-bit offsets. Deflate cannot grow its input by more than a
# thousandth, so the margin covers directories and profile too.
_CLASSIC_BYTES = 2**32 - 2**26


def write_rows(file: BinaryIO, rows: Iterable[np.ndarray], raster: Raster) -> tuple[str, ...]:
    """Write `rows` as one TIFF of strips that are deflated after horizontal differences; return notes.

    `rows` are arrays (any number, width, bands) of the raster's depth, top to bottom; `file` must be seekable.

    The EXIF block becomes the head of the file: its own offsets count from there, so the directory can take over its
    entries as they are and maker notes stay whole. The entries of 64-bit TIFF differ, so above 4 GB of pixels EXIF is
    dropped with a note.
    """
    return _write(file, rows, raster, deflated=True)


def write_plain_rows(file: BinaryIO, rows: Iterable[np.ndarray], raster: Raster) -> tuple[str, ...]:
    """Write `rows` as `write_rows` does, uncompressed."""
    return _write(file, rows, raster, deflated=False)


def _write(file: BinaryIO, rows: Iterable[np.ndarray], raster: Raster, *, deflated: bool) -> tuple[str, ...]:
    big = raster.row_bytes * raster.height > _CLASSIC_BYTES
    notes = ("exif-dropped",) if big and raster.exif else ()
    head = b"" if big else raster.exif
    order = exif.byte_order(head)
    if not head:
        head = b"II" + struct.pack("<HHHQ", 43, 8, 0, 0) if big else b"II" + struct.pack("<HI", 42, 0)
    start = file.tell()
    file.write(head)
    strips = []
    for strip in regroup(rows, raster.rows_per_strip):
        if deflated:
            differences = strip.copy()
            np.subtract(strip[:, 1:], strip[:, :-1], out=differences[:, 1:])
            data = isal_zlib.compress(to_bytes(differences, order), _DEFLATE_LEVEL)
        else:
            data = to_bytes(strip, order).tobytes()
        strips.append((file.tell() - start, len(data)))
        file.write(data)
    directory = _write_directory(file, _tags(raster, strips, deflated), start, order, big, head)
    end = file.tell()
    file.seek(start + (8 if big else 4))
    file.write(struct.pack(order + ("Q" if big else "I"), directory))
    file.seek(end)
    return notes


_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 1, 3, 4, 5, 7, 16
_CODES = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _LONG8: "Q"}


def _tags(
    raster: Raster, strips: list[tuple[int, int]], deflated: bool
) -> dict[int, tuple[int, list[int] | bytes]]:
    """Return the directory: tag -> (type, values). `_write_directory` makes offsets 64-bit where the file is.

    `strips` are (offset, length) in bytes.
    """
    tags: dict[int, tuple[int, list[int] | bytes]] = {
        256: (_LONG, [raster.width]),
        257: (_LONG, [raster.height]),
        258: (_SHORT, [raster.depth] * raster.bands),
        # Deflate, or none.
        259: (_SHORT, [8 if deflated else 1]),
        262: (_SHORT, [1 if raster.bands < 3 else 2]),
        273: (_LONG, [offset for offset, _ in strips]),
        274: (_SHORT, [1]),
        277: (_SHORT, [raster.bands]),
        278: (_LONG, [raster.rows_per_strip]),
        279: (_LONG, [length for _, length in strips]),
        284: (_SHORT, [1]),
        # Horizontal differences, or none.
        317: (_SHORT, [2 if deflated else 1]),
        339: (_SHORT, [1] * raster.bands),
    }
    if raster.alpha:
        # Straight alpha.
        tags[338] = (_SHORT, [2])
    if density := raster.metadata.density:
        density = density.per("cm") if density.unit == "metre" else density
        tags[282] = (_RATIONAL, [*as_rational(density.x)])
        tags[283] = (_RATIONAL, [*as_rational(density.y)])
        tags[296] = (_SHORT, [{"": 1, "inch": 2, "cm": 3}[density.unit]])
    if raster.metadata.xmp:
        tags[700] = (_BYTE, raster.metadata.xmp)
    if raster.metadata.iptc:
        # As 32-bit numbers, though it is bytes: so Photoshop writes it, and some programs read nothing else.
        tags[33723] = (_LONG, raster.metadata.iptc + bytes(-len(raster.metadata.iptc) % 4))
    if raster.icc:
        tags[34675] = (_UNDEFINED, raster.icc)
    return tags


def _write_directory(file: BinaryIO, tags: dict, start: int, order: str, big: bool, head: bytes) -> int:
    """Write the directory behind the pixels, with the EXIF block's own entries; return its offset from `start`."""
    count_code, offset_code, inline = ("Q", "Q", 8) if big else ("H", "I", 4)
    entries = {} if big else dict(exif.first_entries(exif.bare(head)))
    for tag, (kind, values) in tags.items():
        if big and tag in (273, 279):
            kind = _LONG8
        codes = f"{order}{len(values)}{_CODES.get(kind, 's')}"
        count = len(values)
        if kind == _RATIONAL:
            count //= 2
        elif isinstance(values, bytes) and kind == _LONG:
            count //= 4
        packed = values if isinstance(values, bytes) else struct.pack(codes, *values)
        if len(packed) > inline:
            _align(file, start)
            offset = file.tell() - start
            file.write(packed)
            packed = struct.pack(order + offset_code, offset)
        entries[tag] = struct.pack(f"{order}HH{offset_code}", tag, kind, count) + packed.ljust(inline, b"\0")
    _align(file, start)
    directory = file.tell() - start
    file.write(struct.pack(order + count_code, len(entries)))
    file.write(b"".join(entries[tag] for tag in sorted(entries)))
    file.write(struct.pack(order + offset_code, 0))
    return directory


def _align(file: BinaryIO, start: int) -> None:
    file.write(b"\0" * (-(file.tell() - start) % 8))
