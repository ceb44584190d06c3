"""JPEG: header, and encoders in memory (Pillow) and on disk (libvips). https://www.w3.org/Graphics/JPEG/itu-t81.pdf

On disk the metadata's segments are written here: libvips rewrites EXIF, which breaks maker notes.
"""

import io
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

import imgtx.codecs.exif as exif
import imgtx.codecs.vips as vips
from imgtx.codecs.convert import to_pillow
from imgtx.codecs.format import Format, Writer
from imgtx.codecs.picture import Facts, Header, Picture, displayed, dropped
from imgtx.codecs.rows import Raster

# From this quality on every pixel keeps its own chroma (4:4:4); below it four pixels share one (4:2:0).
_FULL_CHROMA_QUALITY = 90
# The length field of a segment counts itself and the body, in 16 bits.
_SEGMENT_BYTES = 65_533
_ICC_HEAD = b"ICC_PROFILE\0"
# How the segments begin that are carried, or are lost by a note of their own.
_KNOWN = {
    "APP0": (b"JFIF", b"JFXX\0"),
    "APP1": (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"),
    "APP2": (_ICC_HEAD, b"MPF\0"),
    "APP13": (b"Photoshop 3.0\0",),
    "APP14": (b"Adobe",),
}


def recognise(start: bytes) -> bool:
    return start.startswith(b"\xff\xd8\xff")


def read_facts(file: BinaryIO) -> Facts:
    """Read the header and the metadata by Pillow's plug-in: it walks the markers up to the first scan."""
    from PIL.JpegImagePlugin import JpegImageFile

    # Not Image.open: it checks for bombs by a setting of the whole process.
    image = JpegImageFile(file)
    raw = image.info.get("exif", b"")
    block = exif.bare(raw)
    orientation = exif.orientation(block)
    segments = [(name, body) for name, body in image.applist if name != "COM"]
    notes = dropped(
        exif=bool(raw) and not block,
        xmp=any(name == "APP1" and body.startswith(_KNOWN["APP1"][1:]) for name, body in segments),
        iptc="photoshop" in image.info,
        text="comment" in image.info,
        extra_pictures="mpoffset" in image.info,
        app_segments=not all(body.startswith(_KNOWN.get(name, ())) for name, body in segments),
    )
    header = Header(
        "jpeg",
        *displayed(image.height, image.width, orientation),
        channels=1 if image.mode == "L" else 3,
        depth=8,
        alpha=False,
        frames=1,
        orientation=orientation,
        form={"L": "grey", "RGB": "rgb", "CMYK": "cmyk"}[image.mode],
    )
    return Facts(header, image.info.get("icc_profile") or b"", block, notes)


def encode(picture: Picture, quality: int) -> tuple[bytes, tuple[str, ...]]:
    """Encode in memory, by Pillow."""
    from PIL.JpegImagePlugin import JpegImageFile

    out = io.BytesIO()
    to_pillow(picture).save(
        out,
        JpegImageFile.format,
        quality=quality,
        subsampling="4:4:4" if quality >= _FULL_CHROMA_QUALITY else "4:2:0",
        icc_profile=picture.icc or None,
        exif=exif.PREFIX + picture.exif if picture.exif else b"",
    )
    return out.getvalue(), ()


def write(path: Path, rows: Iterable[np.ndarray], raster: Raster, quality: int) -> tuple[str, ...]:
    """Encode on disk, by libvips, in bounded memory; then put the metadata's segments before the pixels."""
    bare = path.with_name("bare")
    with vips.image_of_rows(path.with_name("rows.tif"), rows, raster) as image:
        chroma = "off" if quality >= _FULL_CHROMA_QUALITY else "on"
        image.jpegsave(str(bare), Q=quality, subsample_mode=chroma, keep="none")
    with bare.open("rb") as encoded, path.open("wb") as file:
        # The marker that begins every JPEG.
        file.write(encoded.read(2))
        file.write(_segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"))
        if raster.exif:
            file.write(_segment(0xE1, exif.PREFIX + raster.exif))
        for part in _profile_parts(raster.icc):
            file.write(_segment(0xE2, part))
        shutil.copyfileobj(encoded, file, 2**20)
    bare.unlink()
    return ()


def _profile_parts(icc: bytes) -> list[bytes]:
    """Return the bodies of a profile's segments, each with its number and their count."""
    room = _SEGMENT_BYTES - len(_ICC_HEAD) - 2
    parts = [icc[at : at + room] for at in range(0, len(icc), room)]
    return [_ICC_HEAD + bytes([number, len(parts)]) + part for number, part in enumerate(parts, 1)]


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


FORMAT = Format(
    name="jpeg",
    title="JPEG",
    suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
    recognise=recognise,
    read_facts=read_facts,
    samples=vips.samples,
    strips=vips.strips,
    writer=Writer(
        encode=encode,
        write=write,
        # libjpeg stops short of the 65,535 that JPEG itself allows.
        side_limit=65_500,
        grey=True,
        icc=True,
        exif_limit=_SEGMENT_BYTES - len(exif.PREFIX),
    ),
)
