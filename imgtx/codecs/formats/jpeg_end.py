"""How a JPEG ends: with its EOI marker, with other bytes behind it, or too early.

A file that lost its last bytes can still hold every pixel: a copy that stopped short, a disk block of zeros. Whether it
does is decided by the decoder, which is given the marker that is missing, and for pictures of several scans by their
headers: a decoder takes the absence of a whole scan for intention.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

EOI = b"\xff\xd9"
_SOS = 0xDA
# Start of frame, without DHT, JPG and DAC, which lie among them.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
# Any marker but stuffed bytes, fill bytes and restarts, which lie within the data of a scan.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Bytes that are searched together: few where the next marker is near, as between segments.
_FIRST_BLOCK, _LARGEST_BLOCK = 2**10, 2**20
_COEFFICIENTS = 64


@dataclass
class _Scans:
    """What the headers of the frame and of its scans say.

    `depths` are, for each component by its id, the bits that each coefficient still lacks: 0 once it is whole.
    """

    progressive: bool = False
    depths: dict[int, list[int]] = field(default_factory=dict)

    def frame(self, marker: int, body: bytes) -> None:
        self.progressive = marker in _PROGRESSIVE
        self.depths = {body[6 + 3 * number]: [99] * _COEFFICIENTS for number in range(body[5])}

    def scan(self, body: bytes) -> None:
        count = body[0]
        first, last, approximation = body[1 + 2 * count : 4 + 2 * count]
        if not self.progressive:
            first, last, approximation = 0, _COEFFICIENTS - 1, 0
        for number in range(count):
            depths = self.depths[body[1 + 2 * number]]
            depths[first : last + 1] = [approximation & 15] * (last + 1 - first)

    @property
    def whole(self) -> bool:
        return bool(self.depths) and not any(any(depths) for depths in self.depths.values())


@dataclass(frozen=True)
class End:
    """`trailing`: bytes behind the EOI. `missing`: no EOI, though every scan has begun."""

    trailing: int = 0
    missing: bool = False


def find_end(file: BinaryIO) -> End:
    """Find where a JPEG ends. A whole file without further bytes costs one search for its EOI."""
    size = file.seek(0, os.SEEK_END)
    start = _first_scan(file)
    if start and _find(file, EOI, start) == size - len(EOI):
        return End()
    scans = _Scans()
    try:
        for marker, at in _markers(file):
            if marker == EOI[1]:
                return End(trailing=size - at - len(EOI))
            if marker in _FRAMES:
                scans.frame(marker, _body(file, at))
            elif marker == _SOS:
                scans.scan(_body(file, at))
    except (IndexError, KeyError, ValueError):
        # Headers that make no sense: the decoder says what is wrong with them.
        return End()
    return End(missing=scans.whole)


def _first_scan(file: BinaryIO) -> int:
    """Return where the first scan's header is, 0 if there is none."""
    return next((at for marker, at in _markers(file) if marker == _SOS), 0)


def _markers(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield each marker with where it is: those between segments, and those that end a scan's data."""
    at = 2
    while (at := _find(file, _MARKER, at)) >= 0:
        file.seek(at + 1)
        marker = file.read(1)[0]
        yield marker, at
        if marker == EOI[1]:
            return
        file.seek(at + 2)
        at += 2 + int.from_bytes(file.read(2), "big")


def _body(file: BinaryIO, at: int) -> bytes:
    file.seek(at + 2)
    length = int.from_bytes(file.read(2), "big")
    return file.read(max(0, length - 2))


def _find(file: BinaryIO, what: bytes | re.Pattern[bytes], start: int) -> int:
    """Return where two bytes are found from `start` on, -1 if nowhere."""
    file.seek(start)
    held, at, size = b"", start, _FIRST_BLOCK
    while block := file.read(size):
        size = min(2 * size, _LARGEST_BLOCK)
        held += block
        if isinstance(what, bytes):
            found = held.find(what)
        else:
            match = what.search(held)
            found = match.start() if match else -1
        if found >= 0:
            return at + found
        # The first of the two bytes may be the last of the block.
        at += len(held) - 1
        held = held[-1:]
    return -1
