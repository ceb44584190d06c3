"""WebP: header, decoder and encoders. https://developers.google.com/speed/webp/docs/riff_container

Why the header is read by hand: Pillow's plug-in allocates the whole canvas when it opens a file. Pillow decodes in
memory (faster than libvips). On disk the container's chunks are written here: libvips rewrites EXIF, which breaks
maker notes. WebP can only be decoded and encoded whole; its largest picture is 268 MP.
"""

import io
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

import imgtx.codecs.metadata.exif as exif
import imgtx.codecs.vips as vips
from imgtx.codecs.convert import from_pillow, to_pillow
from imgtx.codecs.format import Format, Writer, holds_any
from imgtx.codecs.formats.webp_quality import HEAD_BYTES, quality_of
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.picture import METADATA_LIMIT, Facts, Header, Picture, displayed, dropped
from imgtx.codecs.rows import Raster

# libwebp's effort, 0 to 6. Its default, 4, takes 2.3 times as long at quality 90 (bench/codecs.py), for files
# that are 3 % smaller and 0.4 dB nearer.
_EFFORT = 2
# At this quality files are lossless.
_LOSSLESS_QUALITY = 100
_KNOWN = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "}


def recognise(start: bytes) -> bool:
    return start.startswith(b"RIFF") and start[8:12] == b"WEBP"


def read_facts(file: BinaryIO) -> Facts:
    """Read the header and the metadata from the chunks, without their pixels."""
    end = struct.unpack_from("<I", file.read(12), 4)[0] + 8
    width = height = 0
    alpha, frames = False, 0
    seen: dict[bytes, bytes] = {}
    while len(head := file.read(8)) == 8 and file.tell() <= end:
        kind, length = struct.unpack("<4sI", head)
        body = file.tell()
        whole = kind in (b"ICCP", b"EXIF", b"XMP ") and length <= METADATA_LIMIT
        start = file.read(length if whole else min(length, HEAD_BYTES))
        if kind == b"VP8X":
            alpha = bool(start[0] & 0x10)
            width = 1 + int.from_bytes(start[4:7], "little")
            height = 1 + int.from_bytes(start[7:10], "little")
        elif kind == b"VP8L" and not width:
            (bits,) = struct.unpack_from("<I", start, 1)
            width, height, alpha = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1))
        elif kind == b"VP8 " and not width:
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", start, 6))
        frames += kind == b"ANMF"
        seen.setdefault(kind, start)
        file.seek(body + length + length % 2)
    if not width:
        raise EOFError("no VP8 chunk")
    block = exif.bare(seen.get(b"EXIF", b""))
    orientation = exif.orientation(block)
    notes = dropped(exif=b"EXIF" in seen and not block, chunks=bool(seen.keys() - _KNOWN))
    header = Header(
        "webp",
        *displayed(height, width, orientation),
        channels=3,
        depth=8,
        alpha=alpha,
        frames=max(1, frames),
        orientation=orientation,
        form="rgb",
        quality=quality_of(seen[b"VP8 "]) if b"VP8 " in seen else 100,
    )
    metadata = Metadata(exif.density(block), seen.get(b"XMP ", b""))
    return Facts(header, seen.get(b"ICCP", b""), block, notes, end, metadata=metadata)


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode a whole file, by Pillow: (height, width, 3 or 4) uint8 as stored."""
    from PIL.WebPImagePlugin import WebPImageFile

    # Not Image.open: it checks for bombs by a setting of the whole process.
    return from_pillow(WebPImageFile(io.BytesIO(data)), header)


def encode(picture: Picture, quality: int) -> tuple[bytes, tuple[str, ...]]:
    """Encode in memory, by Pillow."""
    from PIL.WebPImagePlugin import WebPImageFile

    out = io.BytesIO()
    lossless = quality == _LOSSLESS_QUALITY
    to_pillow(picture).save(
        out,
        WebPImageFile.format,
        quality=quality,
        method=_EFFORT,
        lossless=lossless,
        # Keep the colours of transparent pixels.
        exact=lossless,
        icc_profile=picture.icc or None,
        exif=exif.PREFIX + picture.exif if picture.exif else b"",
        xmp=picture.metadata.xmp,
    )
    return out.getvalue(), ()


def write(path: Path, rows: Iterable[np.ndarray], raster: Raster, quality: int) -> tuple[str, ...]:
    """Encode on disk, by libvips; then put the pixels in a container with the metadata's chunks, if any."""
    bare = path.with_name("bare")
    lossless = quality == _LOSSLESS_QUALITY
    with vips.image_of_rows(path.with_name("rows.tif"), rows, raster) as image:
        image.webpsave(str(bare), Q=quality, lossless=lossless, exact=lossless, effort=_EFFORT, keep="none")
    if raster.icc or raster.exif or raster.metadata.xmp:
        _wrap(bare, path, raster)
        bare.unlink()
    else:
        bare.replace(path)
    return ()


def _wrap(bare: Path, path: Path, raster: Raster) -> None:
    """Write the pixels of the file `bare` to `path` between the metadata's chunks."""
    with bare.open("rb") as encoded, path.open("wb") as file:
        header = read_facts(encoded).header
        encoded.seek(12)
        extended = encoded.read(4) == b"VP8X"
        icc, block, xmp = raster.icc, raster.exif, raster.metadata.xmp
        flags = 0x20 * bool(icc) | 0x10 * header.alpha | 0x08 * bool(block) | 0x04 * bool(xmp)
        sides = (header.width - 1).to_bytes(3, "little") + (header.height - 1).to_bytes(3, "little")
        encoded.seek(12 + 18 * extended)
        file.write(b"RIFF\0\0\0\0WEBP" + _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides))
        if icc:
            file.write(_chunk(b"ICCP", icc))
        shutil.copyfileobj(encoded, file, 2**20)
        if block:
            file.write(_chunk(b"EXIF", block))
        if xmp:
            file.write(_chunk(b"XMP ", xmp))
        length = file.tell() - 8
        file.seek(4)
        file.write(struct.pack("<I", length))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


FORMAT = Format(
    name="webp",
    title="WebP",
    suffixes=(".webp",),
    reads="with and without loss, alpha",
    recognise=recognise,
    read_facts=read_facts,
    samples=samples,
    strips=vips.strips,
    writer=Writer(
        encode=encode,
        write=write,
        side_limit=16_383,
        alpha=True,
        icc=True,
        exif_limit=2**31 - 1,
        holds_xmp=holds_any,
    ),
)
