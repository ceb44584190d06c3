"""TIFFs that libvips does not take, rewritten as one that it does, with the same samples.

libvips is built without Zstandard and LZMA here, and has rules of its own for Lab. The picture's strips or tiles are
put into a file with one directory. Pillow's libtiff inflates those of the two compressions, each as a grey picture of
one strip; stored as deflate without compression they keep TIFF's differences between pixels (tag 317), which libtiff
undoes. Lab is called RGB, so that its numbers arrive as they are stored.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from imgtx.codecs.formats.tiff_pages import parts_of, read_pages
from imgtx.codecs.lab import LAB_FORMS

# Compressions (tag 259) that Pillow inflates.
INFLATED = {34925: "LZMA", 50000: "Zstandard"}
# How their data begin. libtiff prints what it says of others.
_SIGNATURES = {34925: b"\xfd7zXZ\0", 50000: b"\x28\xb5\x2f\xfd"}
_DEFLATE, _RGB = 8, 2
# Bytes with their bits in reverse, as a file of tag 266 may store them.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FILL_ORDER = 266
# Tags that decide what the samples are, beside those that are computed: 16-bit numbers, 32-bit numbers, bytes.
_SHORTS = (258, _FILL_ORDER, 277, 284, 317, 320, 338, 339, 530)
_LONGS = (256, 257, 278, 292, 293, 322, 323)
_BYTES = (347,)
_SHORT, _LONG, _UNDEFINED, _LONG8 = 3, 4, 7, 16
# How many bytes its strips or tiles may be together: a multiple of the picture's, and as many more.
_ROOM = 16, 2**28


def needs_rewriting(tags) -> bool:
    """Return whether libvips cannot decode a picture that imgtx takes, by the tags of its directory."""
    return tags.get(259, 1) in INFLATED or tags.get(262) in LAB_FORMS


def rewrite(source: BinaryIO, target: BinaryIO, *, lenient: bool) -> None:
    """Write the full-size picture of a TIFF as a TIFF of its own, in BigTIFF, with the same order of bytes.

    Holds one strip or tile in memory, and writes no more than a small multiple of the picture, whatever the file says.
    lenient: a strip or tile that is damaged is left out, and so missing in the new file. Raises any exception,
    ValueError for damage.
    """
    tags = read_pages(source).picture.tags
    source.seek(0)
    order = ">" if source.read(2) == b"MM" else "<"
    compression = tags.get(259, 1)
    target.write((b"MM" if order == ">" else b"II") + struct.pack(order + "HHHQ", 43, 8, 0, 0))
    places = []
    factor, room = _ROOM
    room += factor * tags[256] * tags[257] * tags.get(277, 1) * max(tags.get(258, (1,))) // 8
    for number, ((offset, length), (row_bytes, rows)) in enumerate(
        zip(parts_of(tags), _part_sizes(tags), strict=False)
    ):
        room -= max(row_bytes * rows, length)
        if room < 0:
            raise ValueError("its strips or tiles are many times as large as the picture")
        source.seek(offset)
        data = source.read(length)
        if compression in INFLATED:
            data = data.translate(_REVERSED) if tags.get(_FILL_ORDER) == 2 else data
            try:
                if len(data) < length or not data.startswith(_SIGNATURES[compression]):
                    raise OSError("not whole")
                data = zlib.compress(_inflated(data, compression, row_bytes, rows), 0)
            except OSError as error:
                if not lenient:
                    raise ValueError(
                        f"strip or tile {number} is damaged {INFLATED[compression]} data"
                    ) from error
                data = b""
        places.append((target.tell() if data else 0, len(data)))
        target.write(data)
    shorts = [tag for tag in _SHORTS if tag in tags and not (tag == _FILL_ORDER and compression in INFLATED)]
    entries = [(tag, _SHORT, _numbers(tags[tag])) for tag in shorts]
    entries += [(tag, _LONG, _numbers(tags[tag])) for tag in _LONGS if tag in tags]
    entries += [(tag, _UNDEFINED, tags[tag]) for tag in _BYTES if tag in tags]
    photometric = _RGB if tags.get(262) in LAB_FORMS else tags.get(262, 1)
    entries += [
        (259, _SHORT, (_DEFLATE if compression in INFLATED else compression,)),
        (262, _SHORT, (photometric,)),
        (324 if 322 in tags else 273, _LONG8, tuple(offset for offset, _ in places)),
        (325 if 322 in tags else 279, _LONG8, tuple(length for _, length in places)),
    ]
    _write_directory(target, sorted(entries, key=lambda entry: entry[0]), order)


def _part_sizes(tags) -> Iterator[tuple[int, int]]:
    """Yield the bytes of a row, and the rows, of each strip or tile that the picture has."""
    width, height, bits = tags[256], tags[257], max(tags.get(258, (1,)))
    planes, bands = (tags.get(277, 1), 1) if tags.get(284, 1) == 2 else (1, tags.get(277, 1))
    tiled = 322 in tags
    columns, together = (tags[322], tags[323]) if tiled else (width, min(tags.get(278, height), height))
    if columns < 1 or together < 1:
        raise ValueError(f"strips or tiles of {columns} x {together} pixels")
    row_bytes = -(-columns * bands * bits // 8)
    across, down = -(-width // columns), -(-height // together)
    for number in range(planes * across * down):
        yield row_bytes, together if tiled else min(together, height - number % down * together)


def _inflated(data: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """Return the bytes that a strip or tile inflates to, `rows` of `row_bytes`. Raises OSError if it is damaged."""
    from PIL.TiffImagePlugin import TiffImageFile

    tags = {256: row_bytes, 257: rows, 258: 8, 259: compression, 262: 1, 277: 1, 278: rows, 279: len(data)}
    tags[273] = 8 + 2 + 12 * 9 + 4
    directory = b"".join(struct.pack("<HHII", tag, _LONG, 1, value) for tag, value in sorted(tags.items()))
    head = b"II" + struct.pack("<HIH", 42, 8, len(tags))
    # Not Image.open: it checks for bombs by a setting of the whole process.
    image = TiffImageFile(io.BytesIO(head + directory + bytes(4) + data))
    image.load()
    return image.tobytes()


def _numbers(value) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _write_directory(
    file: BinaryIO, entries: list[tuple[int, int, tuple[int, ...] | bytes]], order: str
) -> None:
    """Write a directory of (tag, type, values) at the end of a BigTIFF, and its offset into the head."""
    packed = []
    for tag, kind, values in entries:
        code = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}.get(kind)
        body = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{code}", *values)
        if len(body) > 8:
            at = file.tell()
            file.write(body)
            body = struct.pack(order + "Q", at)
        packed.append(struct.pack(order + "HHQ", tag, kind, len(values)) + body.ljust(8, b"\0"))
    directory = file.tell()
    file.write(struct.pack(order + "Q", len(packed)) + b"".join(packed) + bytes(8))
    file.seek(8)
    file.write(struct.pack(order + "Q", directory))
