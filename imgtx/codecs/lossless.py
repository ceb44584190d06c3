"""PNG and TIFF, written from rows as they come: any height in bounded memory, 8 and 16 bit alike.

Why not a library's writer: at its default level Pillow's PNG costs as much as the model that made the
picture. On a photo of 4 MP (bench/codecs.py) it takes 32 times as long as this writer for files 11 % smaller,
libvips at level 1 with the same filter 1.7 times as long for files 49 % larger. Besides, Pillow writes no
16-bit RGB, and libvips no EXIF into TIFF. The filter is "up" for every row, because numpy subtracts whole
rows at memory speed; Paeth saves 3 % and costs six times as much. ISA-L deflates at level 1; its higher
levels gain nothing on photos.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from isal import isal_zlib

from imgtx.codecs import exif

_LEVEL = 1
_STRIP_BYTES = 2**20  # rows that are filtered and deflated together: they stay in the cache
_CLASSIC_TIFF_BYTES = 2**32 - 2**26  # above this much raw pixel data a TIFF needs 64-bit offsets
# Deflate cannot grow its input by more than a thousandth, so the margin covers directories and profile too.


@dataclass(frozen=True)
class Raster:
    """What a file holds besides its pixels. `bands` is 1 or 3, plus 1 with `alpha` (straight); `depth` 8 or
    16 bits.

    `icc` is a profile or b""; `exif` a bare block (`imgtx.codecs.exif.bare`) or b"".
    """

    height: int
    width: int
    bands: int
    depth: int
    alpha: bool
    icc: bytes = b""
    exif: bytes = b""

    @property
    def rows_per_strip(self) -> int:
        return max(1, min(self.height, _STRIP_BYTES // self.row_bytes))

    @property
    def row_bytes(self) -> int:
        return self.width * self.bands * self.depth // 8


def write_png(file: BinaryIO, rows: Iterable[np.ndarray], raster: Raster) -> None:
    """Write `rows`, arrays (any number, width, bands) of the raster's depth, top to bottom, as one PNG."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[raster.bands]
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", raster.width, raster.height, raster.depth, colour, 0, 0, 0))
    if raster.icc:
        _chunk(file, b"iCCP", b"icc\0\0" + zlib.compress(raster.icc))
    if raster.exif:
        _chunk(file, b"eXIf", raster.exif)
    deflate = isal_zlib.compressobj(_LEVEL)
    above = np.zeros(raster.row_bytes, np.uint8)
    for strip in regroup(rows, raster.rows_per_strip):
        lines = _bytes(strip, ">")
        filtered = np.empty((len(lines), raster.row_bytes + 1), np.uint8)
        filtered[:, 0] = 2  # the filter named "up"
        np.subtract(lines[0], above, out=filtered[0, 1:])
        np.subtract(lines[1:], lines[:-1], out=filtered[1:, 1:])
        above = lines[-1]
        if packed := deflate.compress(filtered):
            _chunk(file, b"IDAT", packed)
    _chunk(file, b"IDAT", deflate.flush())
    _chunk(file, b"IEND", b"")


def write_tiff(
    file: BinaryIO, rows: Iterable[np.ndarray], raster: Raster, *, packed: bool = True
) -> tuple[str, ...]:
    """Write `rows` (as `write_png`) as one TIFF: strips; returns notes.

    `packed`: deflate after a horizontal predictor; else the bare samples.

    `file` must be seekable. The EXIF block becomes the head of the file: its own offsets count from there, so
    the directory can take over its entries as they are and maker notes stay whole. 64-bit TIFF has other
    entries, so above 4 GB of pixels EXIF is dropped with a note.
    """
    big = raster.row_bytes * raster.height > _CLASSIC_TIFF_BYTES
    notes = ("exif-dropped",) if big and raster.exif else ()
    head = b"" if big else raster.exif
    order = exif.byte_order(head)
    if not head:
        head = b"II" + struct.pack("<HHHQ", 43, 8, 0, 0) if big else b"II" + struct.pack("<HI", 42, 0)
    start = file.tell()
    file.write(head)
    strips = []
    for strip in regroup(rows, raster.rows_per_strip):
        if packed:
            differences = strip.copy()
            np.subtract(strip[:, 1:], strip[:, :-1], out=differences[:, 1:])
            data = isal_zlib.compress(_bytes(differences, order), _LEVEL)
        else:
            data = _bytes(strip, order).tobytes()
        strips.append((file.tell() - start, len(data)))
        file.write(data)
    directory = _write_directory(file, _tiff_tags(raster, strips, packed), start, order, big, head)
    end = file.tell()
    file.seek(start + (8 if big else 4))
    file.write(struct.pack(order + ("Q" if big else "I"), directory))
    file.seek(end)
    return notes


def regroup(rows: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The same rows in arrays of `count` rows each; the last may be shorter."""
    held: list[np.ndarray] = []
    height = 0
    for block in rows:
        held.append(block)
        height += len(block)
        if height >= count:
            joined = held[0] if len(held) == 1 else np.concatenate(held)
            whole = height - height % count
            for top in range(0, whole, count):
                yield joined[top : top + count]
            held, height = [joined[whole:]], height - whole
    if height:
        yield np.concatenate(held)


def _bytes(strip: np.ndarray, order: str) -> np.ndarray:
    """(rows, width, bands) of uint8 or uint16 as (rows, bytes) in the file's byte order."""
    wide = np.ascontiguousarray(strip, dtype=np.dtype(f"{order}u{strip.itemsize}"))
    return wide.view(np.uint8).reshape(len(strip), -1)


def _chunk(file: BinaryIO, kind: bytes, body: bytes) -> None:
    file.write(struct.pack(">I4s", len(body), kind))
    file.write(body)
    file.write(struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))


_SHORT, _LONG, _UNDEFINED, _LONG8 = 3, 4, 7, 16
_CODES = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}


def _tiff_tags(
    raster: Raster, strips: list[tuple[int, int]], packed: bool
) -> dict[int, tuple[int, list[int] | bytes]]:
    """The directory: tag -> (type, values).

    Offsets become 64-bit only where the file does (`_write_directory`).
    """
    tags: dict[int, tuple[int, list[int] | bytes]] = {
        256: (_LONG, [raster.width]),
        257: (_LONG, [raster.height]),
        258: (_SHORT, [raster.depth] * raster.bands),
        259: (_SHORT, [8 if packed else 1]),  # deflate, or none
        262: (_SHORT, [1 if raster.bands < 3 else 2]),
        273: (_LONG, [offset for offset, _ in strips]),
        274: (_SHORT, [1]),
        277: (_SHORT, [raster.bands]),
        278: (_LONG, [raster.rows_per_strip]),
        279: (_LONG, [length for _, length in strips]),
        284: (_SHORT, [1]),
        317: (_SHORT, [2 if packed else 1]),  # horizontal differences, or none
        339: (_SHORT, [1] * raster.bands),
    }
    if raster.alpha:
        tags[338] = (_SHORT, [2])  # straight alpha
    if raster.icc:
        tags[34675] = (_UNDEFINED, raster.icc)
    return tags


def _write_directory(file: BinaryIO, tags: dict, start: int, order: str, big: bool, head: bytes) -> int:
    """Write the directory behind the pixels, with the EXIF block's own entries; its offset from `start`."""
    count_code, offset_code, inline = ("Q", "Q", 8) if big else ("H", "I", 4)
    entries = {} if big else dict(exif.first_entries(exif.bare(head)))
    for tag, (kind, values) in tags.items():
        if big and tag in (273, 279):
            kind = _LONG8
        count = len(values)
        packed = (
            values if isinstance(values, bytes) else struct.pack(f"{order}{count}{_CODES[kind]}", *values)
        )
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
