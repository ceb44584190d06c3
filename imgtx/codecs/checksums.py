"""Checksums that the decoders pass over: flipped bits would be wrong pixels."""

import struct
import zlib
from typing import BinaryIO

from isal import isal_zlib

from imgtx.codecs.picture import Facts
from imgtx.errors import ImageError

_UNFOLDED = 2**18  # bytes of a deflated strip at a time


def check_png(file: BinaryIO) -> None:
    """Check every chunk's CRC, and that the last one is there: a decoder is content with the last row."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        crc = zlib.crc32(kind)
        while length and (part := file.read(min(length, 2**20))):
            crc = zlib.crc32(part, crc)
            length -= len(part)
        stated = file.read(4)
        if length or len(stated) < 4:
            break
        if crc != struct.unpack(">I", stated)[0]:
            raise ImageError(
                "corrupt", f"the PNG's {kind!r} chunk fails its checksum: fetch or make the file again"
            )
        if kind == b"IEND":
            return
    raise ImageError(
        "truncated", f"the PNG ends at byte {file.tell()} inside or before a chunk: fetch it again"
    )


def check_deflated(file: BinaryIO, facts: Facts) -> None:
    """Check the checksum of a TIFF's deflated strips and tiles: libtiff stops before it, with wrong pixels.

    A wrong one raises whatever the library raises. What the streams unfold to is bounded: several times the
    picture, whatever they claim.
    """
    room = 16 * facts.header.height * facts.header.width + 2**24
    for offset, length in facts.deflated:
        file.seek(offset)
        stream, left = isal_zlib.decompressobj(), length
        while left > 0 and room > 0 and not stream.eof and (part := file.read(min(left, 2**20))):
            left -= len(part)
            unfolded = _UNFOLDED
            while not stream.eof and room > 0 and (part or unfolded == _UNFOLDED):
                unfolded = len(stream.decompress(part, _UNFOLDED))
                part = stream.unconsumed_tail
                room -= unfolded
