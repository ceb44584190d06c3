"""JPEG: header, and encoders in memory (Pillow) and on disk (libvips). https://www.w3.org/Graphics/JPEG/itu-t81.pdf

On disk the metadata's segments are written here: libvips rewrites EXIF, which breaks maker notes.
"""

import io
import re
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

import imgtx.codecs.metadata.exif as exif
import imgtx.codecs.metadata.iptc as iptc
import imgtx.codecs.vips as vips
from imgtx.codecs.convert import to_pillow
from imgtx.codecs.format import Format, Writer
from imgtx.codecs.formats.jpeg_attachments import ISO_GAIN_MAP, attachment_notes
from imgtx.codecs.formats.jpeg_end import EOI, find_end
from imgtx.codecs.formats.jpeg_quality import quality_of
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.metadata.density import Density, density_of
from imgtx.codecs.metadata.xmp import digest_of, joined, split
from imgtx.codecs.picture import Facts, Header, Picture, displayed, dropped
from imgtx.codecs.rows import Raster
from imgtx.errors import ImageError

# From this quality on every pixel keeps its own chroma (4:4:4); below it four pixels share one (4:2:0).
_FULL_CHROMA_QUALITY = 90
# The length field of a segment counts itself and the body, in 16 bits.
_SEGMENT_BYTES = 65_533
_ICC_HEAD = b"ICC_PROFILE\0"
# Pixels per unit in JFIF.
_JFIF_LIMIT = 0xFFFF
_XMP_HEAD, _XMP_EXTENSION_HEAD = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
# Bytes of an XMP packet in one segment, and of an extension in each of its segments, which says which and where it is.
_XMP_ROOM = _SEGMENT_BYTES - len(_XMP_HEAD)
_XMP_EXTENSION_ROOM = _SEGMENT_BYTES - len(_XMP_EXTENSION_HEAD) - 40
# How the segments begin that are carried, or are lost by a note of their own.
_KNOWN = {
    "APP0": (b"JFIF", b"JFXX\0"),
    "APP1": (b"Exif\0", _XMP_HEAD, _XMP_EXTENSION_HEAD),
    "APP2": (_ICC_HEAD, b"MPF\0", ISO_GAIN_MAP),
    "APP13": (iptc.SEGMENT,),
    "APP14": (b"Adobe",),
}


def recognise(start: bytes) -> bool:
    return start.startswith(b"\xff\xd8\xff")


def read_facts(file: BinaryIO) -> Facts:
    """Read the header and the metadata by Pillow's plug-in: it walks the markers up to the first scan."""
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        # Not Image.open: it checks for bombs by a setting of the whole process.
        image = JpegImageFile(file)
    except SyntaxError as error:
        if bits := re.match(r"cannot handle (\d+)-bit", str(error)):
            raise ImageError(
                "unsupported", f"a JPEG of {bits[1]} bits; imgtx reads those of 8: convert it to PNG or TIFF"
            ) from error
        raise
    raw = image.info.get("exif", b"")
    block = exif.bare(raw)
    orientation = exif.orientation(block)
    segments = [(name, body) for name, body in image.applist if name != "COM"]
    main = next(iter(_bodies(segments, "APP1", _XMP_HEAD)), b"")
    extensions = _bodies(segments, "APP1", _XMP_EXTENSION_HEAD)
    xmp, complete = joined(main, extensions)
    among, others = iptc.from_resources(b"".join(_bodies(segments, "APP13", iptc.SEGMENT)))
    notes = dropped(
        exif=bool(raw) and not block,
        xmp=not complete,
        iptc=not iptc.is_whole(among),
        photoshop=others,
        text="comment" in image.info,
        app_segments=not all(body.startswith(_KNOWN.get(name, ())) for name, body in segments),
    )
    end = find_end(file)
    notes += ("end-missing",) if end.missing else ()
    notes += attachment_notes(file, end.trailing, main + b"".join(extensions))
    header = Header(
        "jpeg",
        *displayed(image.height, image.width, orientation),
        channels=1 if image.mode == "L" else 3,
        depth=8,
        alpha=False,
        frames=1,
        orientation=orientation,
        form={"L": "grey", "RGB": "rgb", "CMYK": "cmyk"}[image.mode],
        quality=quality_of(
            image.quantization.get(image.layer[0][3]) or next(iter(image.quantization.values()), ())
        ),
    )
    metadata = Metadata(_density(image.info) or exif.density(block), xmp, iptc.datasets(among))
    icc = image.info.get("icc_profile") or b""
    return Facts(header, icc, block, notes, metadata=metadata, tail=EOI if end.missing else b"")


def _bodies(segments: list[tuple[str, bytes]], name: str, head: bytes) -> list[bytes]:
    """Return what follows `head` in the segments that begin with it."""
    return [body[len(head) :] for kind, body in segments if kind == name and body.startswith(head)]


def _density(info: dict) -> Density | None:
    """Return the resolution that JFIF states."""
    x, y = info.get("jfif_density", (0, 0))
    return density_of(x, y, {1: "inch", 2: "cm"}.get(info.get("jfif_unit", 0), ""))


def _jfif_density(density: Density | None) -> tuple[int, int, int]:
    """Return JFIF's unit, x and y; 0, 1, 1 where there is none."""
    if density is None:
        return 0, 1, 1
    if density.unit and density.unit != "cm":
        density = density.per("inch")
    if density.unit == "inch" and max(density.rounded()) > _JFIF_LIMIT:
        density = density.per("cm")
    return {"": 0, "inch": 1, "cm": 2}[density.unit], *density.rounded()


def holds_density(density: Density) -> bool:
    return max(_jfif_density(density)) <= _JFIF_LIMIT


def encode(picture: Picture, quality: int) -> tuple[bytes, tuple[str, ...]]:
    """Encode in memory, by Pillow."""
    from PIL.JpegImagePlugin import JpegImageFile

    bare, out = io.BytesIO(), io.BytesIO()
    chroma = "4:4:4" if quality >= _FULL_CHROMA_QUALITY else "4:2:0"
    to_pillow(picture).save(bare, JpegImageFile.format, quality=quality, subsampling=chroma)
    bare.seek(0)
    _put_together(bare, out, picture)
    return out.getvalue(), ()


def write(path: Path, rows: Iterable[np.ndarray], raster: Raster, quality: int) -> tuple[str, ...]:
    """Encode on disk, by libvips, in bounded memory; then put the metadata's segments before the pixels."""
    bare = path.with_name("bare")
    with vips.image_of_rows(path.with_name("rows.tif"), rows, raster) as image:
        chroma = "off" if quality >= _FULL_CHROMA_QUALITY else "on"
        image.jpegsave(str(bare), Q=quality, subsample_mode=chroma, keep="none")
    with bare.open("rb") as encoded, path.open("wb") as file:
        _put_together(encoded, file, raster)
    bare.unlink()
    return ()


def _put_together(encoded: BinaryIO, file: BinaryIO, described: Picture | Raster) -> None:
    """Write an encoded JPEG with JFIF of its own, and the metadata, before its other segments."""
    # The marker that begins every JPEG.
    file.write(encoded.read(2))
    head = encoded.read(4)
    if head[:2] == b"\xff\xe0":
        # The encoder's JFIF.
        encoded.seek(2 + 2 + struct.unpack(">H", head[2:])[0])
    else:
        encoded.seek(2)
    # Version 1.1; without a thumbnail.
    jfif = struct.pack(">5sHBHHBB", b"JFIF\0", 0x101, *_jfif_density(described.metadata.density), 0, 0)
    file.write(_segment(0xE0, jfif))
    if described.exif:
        file.write(_segment(0xE1, exif.PREFIX + described.exif))
    for part in _xmp_parts(described.metadata.xmp):
        file.write(_segment(0xE1, part))
    for part in _profile_parts(described.icc):
        file.write(_segment(0xE2, part))
    for part in _iptc_parts(described.metadata.iptc):
        file.write(_segment(0xED, part))
    shutil.copyfileobj(encoded, file, 2**20)


def _profile_parts(icc: bytes) -> list[bytes]:
    """Return the bodies of a profile's segments, each with its number and their count."""
    room = _SEGMENT_BYTES - len(_ICC_HEAD) - 2
    parts = [icc[at : at + room] for at in range(0, len(icc), room)]
    return [_ICC_HEAD + bytes([number, len(parts)]) + part for number, part in enumerate(parts, 1)]


def holds_xmp(packet: bytes) -> bool:
    """Return whether a packet fits the main segment and its extension."""
    if len(packet) <= _XMP_ROOM:
        return True
    try:
        split(packet, _XMP_ROOM)
    except ValueError:
        return False
    return True


def _xmp_parts(packet: bytes) -> list[bytes]:
    """Return the bodies of a packet's segments: the main packet, and parts of 64 KB of what it has no room for."""
    if not packet:
        return []
    main, extension = split(packet, _XMP_ROOM)
    head = _XMP_EXTENSION_HEAD + digest_of(extension).encode() + struct.pack(">I", len(extension))
    starts = range(0, len(extension), _XMP_EXTENSION_ROOM)
    parts = [head + struct.pack(">I", at) + extension[at : at + _XMP_EXTENSION_ROOM] for at in starts]
    return [_XMP_HEAD + main, *parts]


def _iptc_parts(datasets: bytes) -> list[bytes]:
    """Return the bodies of the segments of the datasets' resource, which goes on from one to the next."""
    resource = iptc.to_resource(datasets) if datasets else b""
    room = _SEGMENT_BYTES - len(iptc.SEGMENT)
    return [iptc.SEGMENT + resource[at : at + room] for at in range(0, len(resource), room)]


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


FORMAT = Format(
    name="jpeg",
    title="JPEG",
    suffixes=(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg"),
    reads="8 bits, grey, YCbCr, RGB and CMYK; baseline, progressive, arithmetic coding",
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
        iptc=True,
        holds_xmp=holds_xmp,
        holds_density=holds_density,
    ),
)
