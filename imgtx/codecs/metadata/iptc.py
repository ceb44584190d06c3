"""IPTC-IIM: the datasets that news agencies and museums describe pictures by, and the containers that hold them.

https://www.iptc.org/std/IIM/4.2/specification/IIMV4.2.pdf. In JPEG they are one of Photoshop's resources, in TIFF a
tag, in PNG a text that ImageMagick introduced and exiftool reads. They are carried byte for byte.
"""

import struct
import zlib
from collections.abc import Iterator

# Begins every dataset.
_MARK = 0x1C
# Photoshop's resources: their signature, the one that holds the datasets, and the digest that other programs compare.
_RESOURCE = b"8BIM"
_IPTC, _IPTC_DIGEST = 0x0404, 0x0425
# Begins the segments of a JPEG that hold resources, which may go on in the next one.
SEGMENT = b"Photoshop 3.0\0"
# The keyword of the text, and the characters of a line of it.
RAW_PROFILES = (b"Raw profile type iptc", b"Raw profile type 8bim")
_LINE = 72


def entries(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (record, number, value) of each dataset, up to the first that is damaged."""
    for start, body, end in _places(data):
        yield data[start + 1], data[start + 2], data[body:end]


def datasets(data: bytes) -> bytes:
    """Return the datasets that `data` begins with, without what fills a tag or a damaged end; b"" if there are none."""
    return data[: max((end for _, _, end in _places(data)), default=0)]


def _places(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield where each dataset begins, where its value begins, and where it ends."""
    at = 0
    while at + 5 <= len(data) and data[at] == _MARK:
        (length,) = struct.unpack_from(">H", data, at + 3)
        body = at + 5
        if length & 0x8000:
            # The length has a length of its own.
            count = length & 0x7FFF
            length = int.from_bytes(data[body : body + count], "big") if count <= 8 else len(data)
            body += count
        if body + length > len(data):
            return
        yield at, body, body + length
        at = body + length


def is_whole(data: bytes) -> bool:
    """Return whether there is nothing but datasets, and zeros behind them."""
    return not data[len(datasets(data)) :].strip(b"\0")


def unswapped(data: bytes) -> bytes:
    """Return the bytes of TIFF's tag as they should be: some programs swap them as if they were 32-bit numbers."""
    if data[:1] == bytes([_MARK]) or data[3:4] != bytes([_MARK]) or len(data) % 4:
        return data
    return struct.pack(f"<{len(data) // 4}I", *struct.unpack(f">{len(data) // 4}I", data))


def from_resources(data: bytes) -> tuple[bytes, bool]:
    """Return the datasets among Photoshop's resources, or b"", and whether there are resources that say more."""
    if data[:1] == bytes([_MARK]):
        # Some programs leave the resource out.
        return data, False
    found, others = b"", False
    for number, body in _resources(data):
        if number == _IPTC:
            found += body
        elif number != _IPTC_DIGEST:
            others = True
    return found, others


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 12 <= len(data) and data[at : at + 4] in (_RESOURCE, b"PHUT", b"DCSR", b"AgHg", b"MeSa"):
        number, name = struct.unpack_from(">HB", data, at + 4)
        # The name and its length fill an even number of bytes.
        start = at + 6 + (name + 2) // 2 * 2
        if start + 4 > len(data):
            return
        (length,) = struct.unpack_from(">I", data, start)
        yield number, data[start + 4 : start + 4 + length]
        at = start + 4 + length + length % 2


def to_resource(data: bytes) -> bytes:
    """Return Photoshop's resource with these datasets."""
    return _RESOURCE + struct.pack(">HHI", _IPTC, 0, len(data)) + data + b"\0" * (len(data) % 2)


def to_raw_profile(datasets: bytes) -> bytes:
    """Return the body of a PNG's zTXt chunk: keyword, method, and the deflated digits of a resource."""
    data = to_resource(datasets)
    digits = data.hex()
    lines = (digits[at : at + _LINE] for at in range(0, len(digits), _LINE))
    text = "\n".join(["", "iptc", f"{len(data):8d}", *lines, ""])
    return RAW_PROFILES[0] + b"\0\0" + zlib.compress(text.encode())


def from_raw_profile(text: bytes) -> bytes:
    """Return the bytes that the text of such a chunk spells: datasets or resources; b"" if it cannot be read."""
    parts = text.split(maxsplit=2)
    try:
        length, data = int(parts[1]), bytes.fromhex(parts[2].decode("ascii"))
    except (IndexError, ValueError):
        return b""
    return data[:length].removeprefix(SEGMENT) if 0 <= length <= len(data) else b""
