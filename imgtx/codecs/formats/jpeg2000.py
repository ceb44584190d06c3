"""JPEG 2000: header and decoder. https://www.itu.int/rec/T-REC-T.800

Pillow decodes it, whole: libvips here is built without it. It delivers colour in 8 bits only, so that deeper colour is
refused instead of cut; grey keeps its 16 bits. The header is read by hand, for what Pillow does not say: profile, bits,
EXIF.
"""

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

import imgtx.codecs.metadata.exif as exif
from imgtx.codecs.convert import as_stated, widened
from imgtx.codecs.format import Format
from imgtx.codecs.formats.boxes import boxes, boxes_of_file
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.picture import METADATA_LIMIT, Facts, Header, dropped
from imgtx.errors import ImageError

_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_COD = b"\xff\x52"
_CODESTREAM = b"\xff\x4f\xff\x51"
_EXIF_ID = b"JpgTiffExif->JP2"
_XMP_ID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
# Enumerated colour spaces: sRGB, grey, sYCC. Others would come out in wrong colours.
_SPACES = {16: "sRGB", 17: "grey", 18: "sYCC"}
_END = b"\xff\xd9"
# As many as the standard can number.
_MOST_TILES = 65_535


@dataclass
class _Parts:
    """What the boxes say: where the codestream begins, its (height, width), a code of _SPACES or 0, the channels of a
    palette or 0.
    """

    codestream: int = 0
    size: tuple[int, int] = (0, 0)
    icc: bytes = b""
    space: int = 0
    palette: int = 0
    exif: bytes = b""
    xmp: bytes = b""


def recognise(start: bytes) -> bool:
    return start.startswith((_SIGNATURE, _CODESTREAM))


def read_facts(file: BinaryIO) -> Facts:
    """Read the boxes and the codestream's first marker. Raises `ImageError` (unsupported) for other forms."""
    parts = _read_parts(file)
    width, height, depths = _read_size(file, parts.codestream)
    if parts.size not in ((0, 0), (height, width)):
        # Pillow goes by the box, with memory for its size.
        raise ValueError(
            f"its header box says {parts.size[1]} x {parts.size[0]}, its pixels {width} x {height}"
        )
    bands = parts.palette or len(depths)
    bits = 8 if parts.palette else depths[0]
    with_alpha = bands in (2, 4)
    colours = bands - with_alpha
    named = f"a JPEG 2000 of {bands} channels of {bits} bits"
    space = parts.icc[16:20].decode("latin-1").strip() if parts.icc else parts.space
    if bands > 4 or space not in (0, *_SPACES, "RGB", "GRAY"):
        raise ImageError(
            "unsupported",
            f"{named} in colour space {space}; imgtx reads grey and RGB with or without alpha: convert it",
        )
    if bits > 16 or (bits > 8 and bands > 1) or len({*depths}) > 1:
        raise ImageError(
            "unsupported", f"{named}; imgtx reads colour of 8 bits and grey of 16: convert it to TIFF"
        )
    block = exif.bare(parts.exif)
    header = Header(
        "jpeg2000",
        height,
        width,
        channels=1 if colours == 1 else 3,
        depth=16 if bits > 8 else 8,
        alpha=with_alpha,
        frames=1,
        # Decoders show the pixels as they are stored.
        orientation=1,
        form="palette" if parts.palette else "grey" if colours == 1 else "rgb",
        quality=0 if _is_lossy(file, parts.codestream) else 100,
    )
    scaled = ("levels-scaled",) if bits not in (8, 16) else ()
    notes = (*scaled, *dropped(exif=bool(parts.exif) and not block))
    return Facts(header, parts.icc, block, notes, metadata=Metadata(exif.density(block), parts.xmp))


def _read_parts(file: BinaryIO) -> _Parts:
    parts = _Parts()
    file.seek(0)
    if file.read(4) == _CODESTREAM:
        # Without boxes.
        return parts
    for box in boxes_of_file(file):
        if box.name == b"jp2c":
            parts.codestream = parts.codestream or box.at
        elif box.name in (b"jp2h", b"uuid") and box.length <= METADATA_LIMIT:
            file.seek(box.at)
            body = file.read(box.length)
            if box.name == b"jp2h":
                _read_header_boxes(body, parts)
            elif body.startswith(_EXIF_ID):
                parts.exif = body[len(_EXIF_ID) :]
            elif body.startswith(_XMP_ID):
                parts.xmp = body[len(_XMP_ID) :]
    if not parts.codestream:
        raise EOFError("no codestream")
    return parts


def _read_header_boxes(data: bytes, parts: _Parts) -> None:
    for box in boxes(data):
        body = data[box.at : box.at + box.length]
        if box.name == b"colr" and not (parts.icc or parts.space):
            if body[0] == 1:
                (parts.space,) = struct.unpack_from(">I", body, 3)
            elif body[0] in (2, 3):
                parts.icc = body[3:]
        elif box.name == b"ihdr":
            height, width = struct.unpack_from(">II", body)
            parts.size = height, width
        elif box.name == b"pclr":
            parts.palette = body[2]


def _read_size(file: BinaryIO, at: int) -> tuple[int, int, list[int]]:
    """Return width, height and the bits of each component, from the SIZ marker, of those of a picture at most five."""
    file.seek(at)
    marker = file.read(4 + 38)
    if marker[:4] != _CODESTREAM:
        raise ValueError("no SIZ marker")
    _, _, right, bottom, left, top, across, down = struct.unpack_from(">HHIIIIII", marker, 4)
    if (
        not (left < right and top < bottom and across and down)
        or -(-right // across) * -(-bottom // down) > _MOST_TILES
    ):
        raise ValueError(f"tiles of {across} x {down} pixels")
    (count,) = struct.unpack_from(">H", marker, 40)
    # A component of signed levels says so in its highest bit: of more bits than are read.
    depths = [bits + 1 for bits, _, _ in struct.iter_unpack("BBB", file.read(3 * min(count, 5)))]
    if len(depths) < min(count, 5) or not depths:
        raise EOFError("no components")
    return right - left, bottom - top, depths


def _is_lossy(file: BinaryIO, at: int) -> bool:
    """Return whether the wavelet is the one that rounds, by the marker COD of the codestream's header."""
    file.seek(at)
    head = file.read(2**12)
    cod = head.find(_COD)
    return cod >= 0 and head[cod + 13 : cod + 14] == b"\0"


def check(file: BinaryIO, facts: Facts) -> None:
    """Check that the codestream ends with its marker: the decoder fills up what is missing."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2))
    tail = file.read(2)
    if tail == _END:
        return
    file.seek(0)
    if file.read(4) == _CODESTREAM:
        raise EOFError("no end marker")
    for box in boxes_of_file(file):
        if box.name == b"jp2c":
            file.seek(box.at + box.length - 2)
            if file.read(2) != _END:
                raise EOFError("no end marker")


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode a whole file, by Pillow: (height, width, bands) uint8 or uint16."""
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

    # Not Image.open: it checks for bombs by a setting of the whole process.
    image = Jpeg2KImageFile(io.BytesIO(data))
    image.load()
    file = io.BytesIO(data)
    parts = _read_parts(file)
    bits = 8 if parts.palette else _read_size(file, parts.codestream)[2][0]
    if header.depth == 16:
        stored = np.asarray(image).astype(np.uint16)
        return widened(as_stated(stored[:, :, None], header), bits)
    mode = ("L" if header.channels == 1 else "RGB") + ("A" if header.alpha else "")
    stored = np.asarray(image.convert(mode) if image.mode != mode else image)
    return widened(as_stated(stored.reshape(*stored.shape[:2], -1), header), bits)


def strips(path: Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a file as one strip, in memory."""
    yield 0, samples(path.read_bytes(), header)


FORMAT = Format(
    name="jpeg2000",
    title="JPEG 2000",
    suffixes=(".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    reads="grey of up to 16 bits, colour of 8, alpha, palettes",
    recognise=recognise,
    read_facts=read_facts,
    check=check,
    samples=samples,
    strips=strips,
    same="png",
)
