"""PNG: header, checksums and writer. https://www.w3.org/TR/png-3/

Why by hand: Pillow refuses PNGs for the length of their texts, says nothing of the chunks that it skips, and writes
no 16-bit RGB. At its default level its writer costs as much as the model that made the picture: on a photo of 4 MP
(bench/codecs.py) it takes 32 times as long as this one for files 11 % smaller; libvips at level 1 with the same
filter takes 1.7 times as long for files 49 % larger.

The filter is "up" for every row, because numpy subtracts whole rows at memory speed; Paeth saves 3 % and costs six
times as much. ISA-L deflates at level 1; its higher levels gain nothing on photos.
"""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import replace
from typing import BinaryIO

import numpy as np
from isal import isal_zlib

import imgtx.codecs.colour as colour
import imgtx.codecs.metadata.exif as exif
import imgtx.codecs.metadata.iptc as iptc
import imgtx.codecs.vips as vips
from imgtx.codecs.format import Format, Writer, holds_any
from imgtx.codecs.formats.png_survey import decides_pixels, survey
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.metadata.density import Density, density_of
from imgtx.codecs.picture import METADATA_LIMIT, Facts, Header, displayed, dropped
from imgtx.codecs.rows import Raster, in_memory, on_disk, regroup, to_bytes
from imgtx.errors import ImageError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_FILTER_UP = 2
_DEFLATE_LEVEL = 1

# Chunks whose bytes are needed; of the others only the presence counts.
_READ = (b"eXIf", b"iCCP", b"acTL", b"pHYs")
# Chunks of text, and the keywords of those that hold metadata: XMP's own, and those that ImageMagick introduced.
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp"
_RAW_XMP = b"Raw profile type xmp"
# An entry for chunks without a type of their own.
_STRAY_KEY = b"tRNS that decoders skip"
# Chunks that are carried, or are lost by a note of their own.
_KNOWN = {
    b"IDAT", b"IEND", b"PLTE", b"acTL", b"eXIf", b"fcTL", b"fdAT", b"iCCP", b"iTXt", b"pHYs", b"sBIT", b"tEXt", b"tRNS",
    b"zTXt", _XMP, _RAW_XMP, *iptc.RAW_PROFILES, *colour.CHUNKS,
}  # fmt: skip
# The lengths of the chunks that readers judge colour by; one of another length counts as none.
_COLOUR_LENGTHS = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}


def recognise(start: bytes) -> bool:
    return start.startswith(_SIGNATURE)


def read_facts(file: BinaryIO) -> Facts:
    """Read the header and the metadata from the chunks, without their pixels."""
    surveyed = survey(file)
    file.seek(len(_SIGNATURE))
    width = height = depth = form = -1
    chunks: dict[bytes, bytes] = {}
    colours = b""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        body = file.tell()
        if body in surveyed.damaged:
            pass
        elif kind == b"IHDR":
            width, height, depth, form = struct.unpack(">IIBB", file.read(10))
        elif kind == b"tRNS" and (b"IDAT" in chunks or not _key_fits(length, form)):
            chunks[_STRAY_KEY] = b""
        elif kind in _TEXTS and (name := _known_text(file.read(min(length, 80)))):
            file.seek(body)
            data = _text(kind, file.read(length)) if length <= METADATA_LIMIT else b""
            chunks.setdefault(name, data)
        elif kind in colour.CHUNKS:
            if (
                kind not in chunks
                and b"IDAT" not in chunks
                and _decides(kind, data := file.read(min(length, 64)))
            ):
                chunks[kind] = b""
                colours += head + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
        elif kind not in chunks:
            chunks[kind] = file.read(length) if kind in _READ and length <= METADATA_LIMIT else b""
        file.seek(body + length + 4)
        if kind == b"IEND":
            break
    if width < 0:
        raise EOFError("no IHDR chunk")
    if b"CgBI" in chunks:
        raise ImageError(
            "unsupported",
            "a PNG in the form that Apple's tools give to apps' pictures (CgBI), which is not standard PNG; imgtx "
            "reads standard PNG: take the original, or convert it on a Mac",
        )
    if form == _PALETTE and b"IDAT" in chunks and b"PLTE" not in chunks and not surveyed.damaged:
        raise ImageError(
            "corrupt",
            "a PNG of palette colours without its palette; it must have one (PLTE): fetch or make the file again",
        )
    if form not in (_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA) or depth not in (1, 2, 4, 8, 16):
        raise ValueError(f"colour type {form} at {depth} bit")
    block = exif.bare(chunks.get(b"eXIf", b""))
    orientation = exif.orientation(block)
    grey = form in (_GREY, _GREY_ALPHA)
    header = Header(
        "png",
        *displayed(height, width, orientation),
        channels=1 if grey else 3,
        depth=16 if depth == 16 else 8,
        alpha=form in (_GREY_ALPHA, _RGB_ALPHA) or b"tRNS" in chunks,
        frames=_frames(chunks),
        orientation=orientation,
        form="palette" if form == _PALETTE else "grey" if grey else "rgb",
    )
    if form == _GREY and depth < 8:
        header = replace(header, form="1bit" if depth == 1 else "lowbit")
    icc = _profile(chunks.get(b"iCCP", b""))
    density = _density(chunks.get(b"pHYs", b"")) or exif.density(block)
    xmp = chunks.get(_XMP) or iptc.from_raw_profile(chunks.get(_RAW_XMP, b""))
    raw = next((iptc.from_raw_profile(chunks[name]) for name in iptc.RAW_PROFILES if name in chunks), b"")
    among, others = iptc.from_resources(raw)
    metadata = Metadata(density, xmp, iptc.datasets(among))
    notes = _notes(chunks, icc, block)
    notes += dropped(
        xmp=bool({_XMP, _RAW_XMP} & chunks.keys()) and not xmp,
        iptc=not iptc.is_whole(among) or (bool({*iptc.RAW_PROFILES} & chunks.keys()) and not raw),
        photoshop=others,
    )
    notes += surveyed.notes
    return Facts(header, icc, block, notes, colour=colours, metadata=metadata, cut=not surveyed.ended)


def _decides(kind: bytes, body: bytes) -> bool:
    """Return whether a colour chunk counts: a gamma of 0 and chunks of another length do not."""
    wanted = _COLOUR_LENGTHS.get(kind, len(body))
    return 0 < len(body) == wanted <= colour.LONGEST_CHUNK and not (kind == b"gAMA" and not any(body))


def _key_fits(length: int, colour: int) -> bool:
    """Return whether a tRNS chunk of `length` bytes fits the colour type."""
    return length in {_GREY: (2,), _RGB: (6,), _PALETTE: range(1, 257)}.get(colour, ())


def _frames(chunks: dict[bytes, bytes]) -> int:
    control = chunks.get(b"acTL", b"")
    return max(1, struct.unpack(">I", control[:4])[0]) if len(control) >= 4 else 1


def _profile(chunk: bytes) -> bytes:
    """Return the profile of an iCCP chunk; b"" if it is damaged."""
    name_end = chunk.find(b"\0")
    if name_end < 0:
        return b""
    try:
        return zlib.decompressobj().decompress(chunk[name_end + 2 :], METADATA_LIMIT)
    except zlib.error:
        return b""


def _known_text(start: bytes) -> bytes:
    """Return the keyword of a text chunk that holds metadata; b"" of any other."""
    name = start.partition(b"\0")[0]
    return name if name in (_XMP, _RAW_XMP, *iptc.RAW_PROFILES) else b""


def _text(kind: bytes, body: bytes) -> bytes:
    """Return the text of a chunk without its keyword; b"" if it is damaged."""
    text = body.partition(b"\0")[2]
    deflated = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\1")
    # The method, and in iTXt a flag before it and two texts behind it.
    text = text[1:] if kind == b"zTXt" else text[2:].split(b"\0", 2)[-1] if kind == b"iTXt" else text
    if not deflated:
        return text
    inflate = zlib.decompressobj()
    try:
        whole = inflate.decompress(text, METADATA_LIMIT)
    except zlib.error:
        return b""
    return whole if inflate.eof else b""


def _density(chunk: bytes) -> Density | None:
    """Return the resolution that a pHYs chunk states: pixels per metre, or the shape of pixels alone."""
    if len(chunk) != 9:
        return None
    x, y, unit = struct.unpack(">IIB", chunk)
    return density_of(x, y, "metre" if unit == 1 else "")


def holds_density(density: Density) -> bool:
    return max(density.per("metre").rounded()) < 2**31


def _notes(chunks: dict[bytes, bytes], icc: bytes, block: bytes) -> tuple[str, ...]:
    return dropped(
        exif=b"eXIf" in chunks and not block,
        icc=b"iCCP" in chunks and not icc,
        sbit=b"sBIT" in chunks,
        text=bool({*_TEXTS} & chunks.keys()),
        chunks=bool(chunks.keys() - _KNOWN),
    )


def check(file: BinaryIO, facts: Facts) -> None:
    """Check the CRC of every chunk that decides pixels, and that none is cut: decoders stop at the last row.

    Raises `ImageError` (corrupt, truncated).
    """
    file.seek(len(_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if not kind.isalpha():
            raise ImageError(
                "corrupt", f"the PNG has bytes {kind!r} for a chunk's name: fetch or make the file again"
            )
        crc = zlib.crc32(kind)
        while length and (part := file.read(min(length, 2**20))):
            crc = zlib.crc32(part, crc)
            length -= len(part)
        stated = file.read(4)
        if kind == b"IEND":
            return
        if (length or len(stated) < 4) and decides_pixels(kind):
            raise ImageError(
                "truncated", f"the PNG ends at byte {file.tell()}, inside its pixels: fetch it again"
            )
        if decides_pixels(kind) and crc != struct.unpack(">I", stated)[0]:
            raise ImageError(
                "corrupt", f"the PNG's {kind.decode()} chunk fails its checksum: fetch or make the file again"
            )


def write_rows(file: BinaryIO, rows: Iterable[np.ndarray], raster: Raster) -> tuple[str, ...]:
    """Write `rows`, arrays (any number, width, bands) of the raster's depth, top to bottom, as one PNG."""
    colour = {1: _GREY, 2: _GREY_ALPHA, 3: _RGB, 4: _RGB_ALPHA}[raster.bands]
    file.write(_SIGNATURE)
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", raster.width, raster.height, raster.depth, colour, 0, 0, 0))
    file.write(raster.colour)
    if raster.icc:
        _chunk(file, b"iCCP", b"icc\0\0" + zlib.compress(raster.icc))
    if density := raster.metadata.density:
        _chunk(file, b"pHYs", struct.pack(">IIB", *density.per("metre").rounded(), bool(density.unit)))
    if raster.exif:
        _chunk(file, b"eXIf", raster.exif)
    if raster.metadata.xmp:
        # Not deflated, so that readers find the packet; language and translated keyword are empty.
        _chunk(file, b"iTXt", _XMP + bytes(5) + raster.metadata.xmp)
    if raster.metadata.iptc:
        _chunk(file, b"zTXt", iptc.to_raw_profile(raster.metadata.iptc))
    for keyword, text in raster.texts:
        # Neither may hold a zero byte; language and translated keyword are empty.
        plain = text.replace("\0", "").encode()
        _chunk(file, b"iTXt", keyword.encode("ascii") + b"\0\0\0\0\0" + plain)
    deflate = isal_zlib.compressobj(_DEFLATE_LEVEL)
    above = np.zeros(raster.row_bytes, np.uint8)
    for strip in regroup(rows, raster.rows_per_strip):
        lines = to_bytes(strip, ">")
        filtered = np.empty((len(lines), raster.row_bytes + 1), np.uint8)
        filtered[:, 0] = _FILTER_UP
        np.subtract(lines[0], above, out=filtered[0, 1:])
        np.subtract(lines[1:], lines[:-1], out=filtered[1:, 1:])
        above = lines[-1]
        if packed := deflate.compress(filtered):
            _chunk(file, b"IDAT", packed)
    _chunk(file, b"IDAT", deflate.flush())
    _chunk(file, b"IEND", b"")
    return ()


def _chunk(file: BinaryIO, kind: bytes, body: bytes) -> None:
    file.write(struct.pack(">I4s", len(body), kind))
    file.write(body)
    file.write(struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))


FORMAT = Format(
    name="png",
    title="PNG",
    suffixes=(".png",),
    reads="every depth, grey, RGB, palettes, alpha, interlaced or not",
    recognise=recognise,
    read_facts=read_facts,
    check=check,
    samples=vips.samples,
    strips=vips.strips,
    writer=Writer(
        encode=in_memory(write_rows),
        write=on_disk(write_rows),
        depth16=True,
        alpha=True,
        grey=True,
        icc=True,
        colour_chunks=True,
        texts=True,
        exif_limit=2**31 - 1,
        iptc=True,
        holds_xmp=holds_any,
        holds_density=holds_density,
    ),
)
