"""TGA: header and decoder (Pillow's). http://www.ludorg.net/amnesia/TGA_File_Format_Spec.html

TGA files begin with no signature: a header counts as one only if each of its fields makes sense together.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from imgtx.codecs.convert import from_pillow
from imgtx.codecs.format import Format
from imgtx.codecs.picture import Facts, Header
from imgtx.errors import ImageError

_HEADER = struct.Struct("<BBBHHBHHHHBB")
# By image type: which depths there are.
_DEPTHS = {1: (8,), 2: (15, 16, 24, 32), 3: (8, 16), 9: (8,), 10: (15, 16, 24, 32), 11: (8, 16)}
_GREY = (3, 11)


def recognise(start: bytes) -> bool:
    if len(start) < _HEADER.size:
        return False
    _, has_palette, kind, first, colours, bits, _, _, width, height, depth, flags = _HEADER.unpack_from(start)
    if depth not in _DEPTHS.get(kind, ()) or not width or not height or flags & 0xC0:
        return False
    if kind in (1, 9):
        return has_palette == 1 and 0 < first + colours <= 256 and bits in (15, 16, 24, 32)
    return not (has_palette or first or colours or bits) and (flags & 15) in (0, 1, 8)


def read_facts(file: BinaryIO) -> Facts:
    """Read the header by Pillow's plug-in. Raises `ImageError` (unsupported) for forms that it reads wrongly."""
    from PIL.TgaImagePlugin import TgaImageFile

    kind, depth = (lambda fields: (fields[2], fields[10]))(_HEADER.unpack(file.read(_HEADER.size)))
    if kind in _GREY and depth == 16:
        raise ImageError(
            "unsupported", "a grey TGA with alpha; imgtx reads grey of 8 bits: convert it to PNG"
        )
    file.seek(0)
    image = TgaImageFile(file)
    form = {"L": "grey", "P": "palette", "RGB": "rgb", "RGBA": "rgb", "1": "1bit"}[image.mode]
    header = Header(
        "tga",
        image.height,
        image.width,
        channels=1 if form in ("grey", "1bit") else 3,
        depth=8,
        alpha=image.mode == "RGBA",
        frames=1,
        orientation=1,
        form=form,
    )
    return Facts(header)


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode a whole file, by Pillow: (height, width, bands) uint8."""
    from PIL.TgaImagePlugin import TgaImageFile

    # Not Image.open: it checks for bombs by a setting of the whole process.
    return from_pillow(TgaImageFile(io.BytesIO(data)), header)


def strips(path: Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a file as one strip, in memory; its sides have at most 65,535 pixels."""
    yield 0, samples(path.read_bytes(), header)


FORMAT = Format(
    name="tga",
    title="TGA",
    suffixes=(".tga",),
    reads="true colour, grey, palettes, RLE, alpha",
    recognise=recognise,
    read_facts=read_facts,
    samples=samples,
    strips=strips,
    same="png",
)
