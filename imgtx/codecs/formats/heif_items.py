"""What AVIF and HEIC files say of their primary picture, apart from its pixels. ISO/IEC 23008-12, 14496-12, 23000-22

A file holds items (pictures, EXIF, XMP) with properties (size, colour, turning) that are stored once and associated.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from imgtx.codecs.formats.boxes import Box, boxes, boxes_of_file
from imgtx.codecs.picture import METADATA_LIMIT

# Brands of moving pictures.
SEQUENCES = (b"avis", b"msf1", b"hevc", b"hevx")
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_GAIN_MAP = (b"urn:com:apple:photo:2020:aux:hdrgainmap",)
# Transfer and matrix codes of ITU-T H.273 that viewers show as sRGB: unspecified ones and those of SDR video.
_PLAIN_TRANSFERS, _PLAIN_PRIMARIES = (1, 2, 6, 13, 14, 15), (1, 2)


@dataclass
class Items:
    """The primary picture of a file.

    `major` and `brands` are the file's kinds, `kind` is the picture's codec or grid, `size` its (height, width) before
    it is turned or cropped, `bits` the depth of each channel as stated, `icc` a profile or b"". `primaries`
    and `transfer` are codes of H.273 where the file states some and no profile. `turned` says whether it is turned or
    mirrored for display, `alpha` and `gain_map` whether it has such a picture beside it, `premultiplied` that its
    colours were multiplied by alpha, `others` how many further pictures there are. `exif` is a bare block.
    """

    major: bytes = b""
    brands: tuple[bytes, ...] = ()
    kind: bytes = b""
    size: tuple[int, int] = (1, 1)
    bits: tuple[int, ...] = ()
    icc: bytes = b""
    primaries: int = 2
    transfer: int = 2
    turned: bool = False
    alpha: bool = False
    gain_map: bool = False
    premultiplied: bool = False
    others: int = 0
    exif: bytes = b""
    xmp: bytes = b""
    end: int = 0

    @property
    def moving(self) -> bool:
        return self.major in SEQUENCES

    @property
    def cicp(self) -> bytes:
        """Return the body of a PNG's cICP chunk that says the same, b"" where it is shown as sRGB."""
        plain = self.transfer in _PLAIN_TRANSFERS and self.primaries in _PLAIN_PRIMARIES
        if self.icc or plain:
            return b""
        transfer = 13 if self.transfer in _PLAIN_TRANSFERS else self.transfer
        primaries = 1 if self.primaries in _PLAIN_PRIMARIES else self.primaries
        # The decoder has undone the matrix and the range.
        return bytes([primaries, transfer, 0, 1])


@dataclass
class _Meta:
    """The boxes of a `meta` box, by item."""

    primary: int = 0
    kinds: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    places: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    associated: dict[int, list[int]] = field(default_factory=dict)
    references: list[tuple[bytes, int, list[int]]] = field(default_factory=list)
    data: bytes = b""

    def of(self, item: int, name: bytes) -> list[bytes]:
        """Return an item's properties of a name."""
        found = [
            self.properties[n - 1] for n in self.associated.get(item, ()) if 0 < n <= len(self.properties)
        ]
        return [body for kind, body in found if kind == name]


def read_brands(start: bytes) -> tuple[bytes, ...]:
    """Return the brands of a file that begins with `start`, the major one first; () if it is none of these files."""
    if start[4:8] != b"ftyp":
        return ()
    length = min(int.from_bytes(start[:4], "big"), len(start))
    return (start[8:12], *(start[at : at + 4] for at in range(16, length - 3, 4)))


def read_items(file: BinaryIO) -> Items:
    """Read the file's `meta` box. Raises EOFError, ValueError or struct.error where that is cut or damaged."""
    file.seek(0)
    brands = read_brands(file.read(256))
    found = Items(brands[0], brands[1:])
    meta = _Meta()
    placed = False
    for box in boxes_of_file(file):
        if box.name == b"meta" and not placed:
            if box.length > METADATA_LIMIT:
                raise ValueError(f"a meta box of {box.length} bytes")
            file.seek(box.at)
            _read_meta(file.read(box.length), meta)
            placed = True
    if not placed:
        raise EOFError("no meta box")
    _describe(file, meta, found)
    found.end = max(
        (start + n for parts in meta.places.values() for kind, start, n in parts if not kind), default=0
    )
    return found


def _describe(file: BinaryIO, meta: _Meta, found: Items) -> None:
    primary = meta.primary
    found.kind = meta.kinds.get(primary, (b"", b""))[0]
    for body in meta.of(primary, b"ispe"):
        width, height = struct.unpack_from(">II", body, 4)
        found.size = height, width
    for body in meta.of(primary, b"pixi"):
        found.bits = tuple(body[5 : 5 + body[4]])
    for body in meta.of(primary, b"colr"):
        if body[:4] == b"nclx":
            found.primaries, found.transfer = struct.unpack_from(">HH", body, 4)
        elif body[:4] in (b"prof", b"rICC"):
            found.icc = body[4:]
    found.turned = bool(meta.of(primary, b"imir")) or any(
        body[:1] != b"\0" for body in meta.of(primary, b"irot")
    )
    within = {target for kind, source, targets in meta.references if kind == b"dimg" for target in targets}
    aside = {primary, *within}
    for kind, source, targets in meta.references:
        if kind == b"auxl" and primary in targets:
            purpose = b"".join(body[4:].split(b"\0")[0] for body in meta.of(source, b"auxC"))
            found.alpha |= purpose in _ALPHA
            found.gain_map |= purpose in _GAIN_MAP
            aside |= {source} if purpose in _ALPHA else set()
        elif kind == b"thmb" and primary in targets:
            aside.add(source)
        elif kind == b"prem" and source == primary:
            found.premultiplied = True
        elif kind == b"cdsc" and primary in targets:
            name, content = meta.kinds.get(source, (b"", b""))
            if name == b"Exif":
                found.exif = _exif(_item(file, meta, source))
            elif name == b"mime" and content == b"application/rdf+xml":
                found.xmp = _item(file, meta, source)
    pictures = {item for item, (name, _) in meta.kinds.items() if name not in (b"Exif", b"mime", b"uri ")}
    found.gain_map |= any(name == b"tmap" for name, _ in meta.kinds.values())
    found.others = len(pictures - aside)


def _exif(data: bytes) -> bytes:
    """Return the block behind the offset that precedes it."""
    if len(data) < 4:
        return b""
    return data[4 + int.from_bytes(data[:4], "big") :]


def _item(file: BinaryIO, meta: _Meta, item: int) -> bytes:
    made = b""
    for method, start, length in meta.places.get(item, ()):
        if length > METADATA_LIMIT:
            return b""
        if method == 1:
            made += meta.data[start : start + length]
        else:
            file.seek(start)
            made += file.read(length)
    return made


def _read_meta(data: bytes, meta: _Meta) -> None:
    # A full box: version and flags come first.
    for box in boxes(data, 4):
        body = data[box.at : box.at + box.length]
        if box.name == b"pitm":
            meta.primary = int.from_bytes(body[4:6] if body[0] == 0 else body[4:8], "big")
        elif box.name == b"iinf":
            _read_kinds(body, meta)
        elif box.name == b"iloc":
            _read_places(body, meta)
        elif box.name == b"iref":
            _read_references(body, meta)
        elif box.name == b"idat":
            meta.data = body
        elif box.name == b"iprp":
            _read_properties(body, meta)


def _read_kinds(body: bytes, meta: _Meta) -> None:
    for box in boxes(body, 6 if body[0] == 0 else 8):
        entry = body[box.at : box.at + box.length]
        version = entry[0]
        if box.name != b"infe" or version < 2:
            continue
        wide = 2 if version == 2 else 4
        item = int.from_bytes(entry[4 : 4 + wide], "big")
        at = 4 + wide + 2
        # A name ends with a zero byte, and a MIME item's type follows it.
        _, _, rest = entry[at + 4 :].partition(b"\0")
        meta.kinds[item] = entry[at : at + 4], rest.split(b"\0")[0]


class _Numbers:
    """Reads numbers of any width, one after the other."""

    def __init__(self, data: bytes, at: int):
        self._data, self._at = data, at

    def next(self, width: int) -> int:
        part = self._data[self._at : self._at + width]
        if len(part) < width:
            raise EOFError("a table ends early")
        self._at += width
        return int.from_bytes(part, "big")


def _read_places(body: bytes, meta: _Meta) -> None:
    version = body[0]
    numbers = _Numbers(body, 4)
    sizes = numbers.next(2)
    offset_wide, length_wide, base_wide, index_wide = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(numbers.next(2 if version < 2 else 4)):
        item = numbers.next(2 if version < 2 else 4)
        method = numbers.next(2) & 15 if version else 0
        numbers.next(2)
        base = numbers.next(base_wide)
        places = []
        for _ in range(numbers.next(2)):
            numbers.next(index_wide if version else 0)
            start = base + numbers.next(offset_wide)
            places.append((method, start, numbers.next(length_wide)))
        meta.places[item] = places


def _read_references(body: bytes, meta: _Meta) -> None:
    wide = 2 if body[0] == 0 else 4
    for box in boxes(body, 4):
        numbers = _Numbers(body[: box.at + box.length], box.at)
        source = numbers.next(wide)
        meta.references.append((box.name, source, [numbers.next(wide) for _ in range(numbers.next(2))]))


def _read_properties(body: bytes, meta: _Meta) -> None:
    for box in boxes(body):
        if box.name == b"ipco":
            meta.properties += _bodies(body, box)
        elif box.name == b"ipma":
            numbers = _Numbers(body, box.at)
            version_and_flags = numbers.next(4)
            wide_item = 4 if version_and_flags >> 24 else 2
            wide_index = 2 if version_and_flags & 1 else 1
            for _ in range(numbers.next(4)):
                item = numbers.next(wide_item)
                indices = [numbers.next(wide_index) for _ in range(numbers.next(1))]
                meta.associated[item] = [index & (0x7FFF if wide_index == 2 else 0x7F) for index in indices]


def _bodies(data: bytes, outer: Box) -> Iterator[tuple[bytes, bytes]]:
    for box in boxes(data, outer.at, outer.at + outer.length):
        yield box.name, data[box.at : box.at + box.length]
