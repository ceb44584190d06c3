"""What is wrong with a PNG without costing a pixel: checksums of ancillary chunks, its end, and bytes behind it.

Viewers leave out an ancillary chunk that fails its checksum (libpng's rule), and so does imgtx. tRNS is ancillary by
its name, but its bytes are pixels.
"""

import os
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from imgtx.codecs.picture import dropped

_SIGNATURE_BYTES = 8
_BLOCK = 2**20


@dataclass(frozen=True)
class Survey:
    """`damaged`: where the bodies of ancillary chunks are that fail their checksum. `ended`: with a whole IEND chunk.

    `trailing`: bytes behind that.
    """

    damaged: frozenset[int]
    ended: bool
    trailing: int

    @property
    def notes(self) -> tuple[str, ...]:
        ended = () if self.ended else ("end-missing",)
        return (*ended, *dropped(damaged_chunk=bool(self.damaged), trailing_bytes=self.trailing > 0))


def decides_pixels(kind: bytes) -> bool:
    """Return whether a chunk's bytes are part of the pixels. IEND has none."""
    return kind == b"tRNS" or (not kind[0] & 0x20 and kind != b"IEND")


def survey(file: BinaryIO) -> Survey:
    """Walk the chunks of a PNG, without reading its pixels."""
    size = file.seek(0, os.SEEK_END)
    file.seek(_SIGNATURE_BYTES)
    damaged = set[int]()
    while len(head := file.read(8)) == 8 and (kind := head[4:]).isalpha():
        length, body = struct.unpack_from(">I", head)[0], file.tell()
        after = body + length + 4
        if after > size:
            break
        whole = decides_pixels(kind) or _checksum(file, kind, length) == file.read(4)
        if kind == b"IEND":
            return Survey(frozenset(damaged), whole, size - after)
        if not whole:
            damaged.add(body)
        file.seek(after)
    return Survey(frozenset(damaged), False, 0)


def _checksum(file: BinaryIO, kind: bytes, length: int) -> bytes:
    """Return the checksum of a chunk whose body begins here, as it is stored behind it."""
    crc = zlib.crc32(kind)
    while length and (part := file.read(min(length, _BLOCK))):
        crc = zlib.crc32(part, crc)
        length -= len(part)
    return struct.pack(">I", crc)
