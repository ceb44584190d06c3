"""GIF of one frame: header and decoder. https://www.w3.org/Graphics/GIF/spec-gif89a.txt

The header is read by hand: Pillow's plug-in seeks through the frames and allocates a canvas. Pillow decodes the one
frame.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from imgtx.codecs.convert import as_stated, from_pillow
from imgtx.codecs.format import Format
from imgtx.codecs.picture import Facts, Header, dropped

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_CONTROL, _COMMENT, _PLAIN_TEXT, _APPLICATION = 0xF9, 0xFE, 0x01, 0xFF


def recognise(start: bytes) -> bool:
    return start.startswith((b"GIF87a", b"GIF89a"))


def read_facts(file: BinaryIO) -> Facts:
    """Walk the blocks up to the second frame, without decoding any."""
    width, height, flags = struct.unpack("<HHB2x", file.read(13)[6:])
    _skip_palette(file, flags)
    frames, transparent, texts, xmp, icc, covered = 0, False, False, False, False, False
    while frames < 2 and (code := file.read(1)) and code[0] != _TRAILER:
        if code[0] == _EXTENSION:
            label = file.read(1)[0]
            first = file.read(file.read(1)[0])
            texts |= label in (_COMMENT, _PLAIN_TEXT)
            xmp |= label == _APPLICATION and first == b"XMP DataXMP"
            icc |= label == _APPLICATION and first == b"ICCRGBG1012"
            if label == _CONTROL and not frames:
                transparent = bool(first[0] & 1)
            if first:
                _skip_blocks(file)
        elif code[0] == _IMAGE:
            left, top, across, down, flags = struct.unpack("<HHHHB", file.read(9))
            frames += 1
            if frames == 1:
                # Pillow widens the canvas for a frame that reaches beyond it.
                width, height = max(width, left + across), max(height, top + down)
                covered = (left, top, across, down) == (0, 0, width, height)
            _skip_palette(file, flags)
            # The size of a code, before the pixels.
            file.read(1)
            _skip_blocks(file)
        elif code[0]:
            raise ValueError(f"a block of unknown kind {code[0]}")
    if not frames:
        raise EOFError("no frame")
    header = Header(
        "gif",
        height,
        width,
        channels=3,
        depth=8,
        # What a frame leaves free of its canvas is transparent.
        alpha=transparent or not covered,
        frames=frames,
        orientation=1,
        form="palette",
    )
    return Facts(header, notes=dropped(icc=icc, xmp=xmp, text=texts))


def _skip_palette(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        file.seek(3 << ((flags & 7) + 1), io.SEEK_CUR)


def _skip_blocks(file: BinaryIO) -> None:
    while (length := file.read(1)) and length[0]:
        file.seek(length[0], io.SEEK_CUR)


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode the frame, by Pillow: (height, width, 3 or 4) uint8."""
    from PIL.GifImagePlugin import GifImageFile

    # Not Image.open: it checks for bombs by a setting of the whole process.
    image = GifImageFile(io.BytesIO(data))
    if not header.alpha:
        return from_pillow(image, header)
    image.load()
    stored = np.asarray(image.convert("RGBA"))
    framed = np.zeros_like(stored)
    if image.dispose_extent:
        left, top, right, bottom = image.dispose_extent
        framed[top:bottom, left:right] = stored[top:bottom, left:right]
    return as_stated(framed, header)


def strips(path: Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a file as one strip, in memory; it has at most 4 billion pixels of one byte."""
    yield 0, samples(path.read_bytes(), header)


FORMAT = Format(
    name="gif",
    title="GIF",
    suffixes=(".gif",),
    reads="one frame",
    recognise=recognise,
    read_facts=read_facts,
    samples=samples,
    strips=strips,
    same="png",
)
