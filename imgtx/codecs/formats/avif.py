"""AVIF: header, decoder (libvips') and encoder (Pillow's). https://aomediacodec.github.io/av1-avif/

libvips decodes all bits, 10 and 12 as 16; Pillow would cut them to 8. Pillow encodes. Both lay out EXIF anew, which
breaks maker notes: Pillow is given other bytes, which are exchanged in the file. AVIF can only be decoded and encoded
whole.
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

import imgtx.codecs.metadata.exif as exif
import imgtx.codecs.vips as vips
from imgtx.codecs.convert import to_pillow, widened
from imgtx.codecs.format import Format, Writer, holds_any
from imgtx.codecs.formats.heif_items import Items, read_brands, read_items
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.picture import Facts, Header, Picture, dropped
from imgtx.codecs.rows import Raster, whole_picture
from imgtx.errors import ImageError

# libaom's speed, 0 to 10. Slower ones gain a few per cent of the size.
_SPEED = 6
# As for JPEG: from this quality on every pixel keeps its own chroma.
_FULL_CHROMA_QUALITY = 90
# EXIF of one entry: byte order, 42, where its directory is, the number of entries, the entry, no further directory.
_STAND_IN = struct.Struct(">2sHIHHHIII")
_PRIVATE_TAG, _UNDEFINED = 0x9999, 7


def recognise(start: bytes) -> bool:
    brands = read_brands(start)
    return bool(brands) and (
        brands[0] in (b"avif", b"avis") or (brands[0] in (b"mif1", b"msf1") and b"avif" in brands)
    )


def read_facts(file: BinaryIO) -> Facts:
    """Read the boxes, and the size as libvips reports it without decoding."""
    items = read_items(file)
    header, notes = header_of("avif", items, *((*items.size, 8) if items.moving else _size(file)))
    return facts_of(items, header, notes)


def header_of(name: str, items: Items, height: int, width: int, bits: int) -> tuple[Header, tuple[str, ...]]:
    """Return the header of an AVIF or HEIC file of that displayed size and depth, and notes of what is not carried.

    Raises `ImageError` (unsupported) for colours that were multiplied by alpha.
    """
    if items.premultiplied:
        raise ImageError(
            "unsupported",
            f"{_article(name)} {name} whose colours were multiplied by its alpha: convert it to PNG",
        )
    header = Header(
        name,
        height,
        width,
        channels=1 if len(items.bits) == 1 else 3,
        depth=16 if bits > 8 else 8,
        alpha=items.alpha,
        frames=2 if items.moving else 1,
        # The decoder turns it.
        orientation=1,
        form="grey" if len(items.bits) == 1 else "rgb",
        # Both can do without loss, and hardly ever do; none says which.
        quality=0,
    )
    turned = ("turned",) if items.turned else ()
    scaled = ("levels-scaled",) if bits not in (8, 16) else ()
    lost = dropped(gain_map=items.gain_map, extra_pictures=items.others > items.gain_map)
    return header, (*turned, *scaled, *lost)


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"


def facts_of(items: Items, header: Header, notes: tuple[str, ...]) -> Facts:
    """Return what an AVIF or HEIC file says, with its colour as a profile or a PNG chunk."""
    block = exif.bare(items.exif)
    colour = b""
    if body := items.cicp:
        colour = (
            struct.pack(">I4s", 4, b"cICP") + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(b"cICP")))
        )
    notes += dropped(exif=bool(items.exif) and not block)
    metadata = Metadata(exif.density(block), items.xmp)
    return Facts(header, items.icc, block, notes, end=items.end, colour=colour, metadata=metadata)


def _size(file: BinaryIO) -> tuple[int, int, int]:
    """Return height, width and bits, without decoding."""
    file.seek(0)
    with vips.step() as library:
        image = library.Image.new_from_buffer(file.read(), "", access="sequential", fail_on="error")
        return image.height, image.width, image.get("bits-per-sample")


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode a whole file, by libvips: (height, width, 3 or 4) uint8 or uint16."""
    made = vips.samples(data, header)
    return widened(made, _size(io.BytesIO(data))[2]) if header.depth == 16 else made


def strips(path: Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a file as one strip, in memory."""
    yield 0, samples(path.read_bytes(), header)


def encode(picture: Picture, quality: int) -> tuple[bytes, tuple[str, ...]]:
    """Encode in memory, by Pillow."""
    from PIL.AvifImagePlugin import AvifImageFile

    standing_in = _stand_in(picture.exif)
    out = io.BytesIO()
    to_pillow(picture).save(
        out,
        AvifImageFile.format,
        quality=quality,
        speed=_SPEED,
        subsampling="4:4:4" if quality >= _FULL_CHROMA_QUALITY else "4:2:0",
        # Else the bytes depend on the number of cores.
        max_threads=1,
        autotiling=False,
        icc_profile=picture.icc or None,
        exif=standing_in,
        xmp=picture.metadata.xmp or None,
    )
    data = out.getvalue()
    if standing_in:
        at = data.find(standing_in)
        if at < 0:
            raise RuntimeError("Pillow wrote other EXIF into an AVIF than it was given")
        block = exif.PREFIX + picture.exif
        data = data[:at] + block.ljust(len(standing_in), b"\0") + data[at + len(standing_in) :]
    return data, ()


def _stand_in(block: bytes) -> bytes:
    """Return EXIF as long as a bare block, or one byte longer, that Pillow writes as it is; b"" for b"".

    It rewrites any other, which moves maker notes.
    """
    if not block:
        return b""
    # The header, and one entry whose bytes are behind it.
    length = max(len(block) + len(block) % 2 - _STAND_IN.size, 6)
    entry = _STAND_IN.pack(b"MM", 42, 8, 1, _PRIVATE_TAG, _UNDEFINED, length, _STAND_IN.size, 0)
    return exif.PREFIX + entry + b"imgtx".ljust(length, b"\xff")


def write(path: Path, rows: Iterable[np.ndarray], raster: Raster, quality: int) -> tuple[str, ...]:
    """Encode the same on disk; the picture is held in memory."""
    data, notes = encode(whole_picture(rows, raster, "avif"), quality)
    path.write_bytes(data)
    return notes


FORMAT = Format(
    name="avif",
    title="AVIF",
    suffixes=(".avif",),
    reads="8, 10 and 12 bits, alpha, turned as the file says",
    recognise=recognise,
    read_facts=read_facts,
    samples=samples,
    strips=strips,
    writer=Writer(
        encode=encode,
        write=write,
        side_limit=65_536,
        alpha=True,
        grey=True,
        icc=True,
        exif_limit=2**31 - 1,
        holds_xmp=holds_any,
    ),
)
