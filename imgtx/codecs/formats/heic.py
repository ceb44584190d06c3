"""HEIC and HEIF: header and decoder, by pi-heif. https://nokiatech.github.io/heif/technical.html

HEVC is read with the extra `heif`: pi-heif is libheif with libde265, both under the LGPL. It encodes nothing.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from imgtx.codecs.convert import as_stated, widened
from imgtx.codecs.extras import extra
from imgtx.codecs.format import Format
from imgtx.codecs.formats.avif import facts_of, header_of
from imgtx.codecs.formats.heif_items import read_brands, read_items
from imgtx.codecs.picture import Facts, Header

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def recognise(start: bytes) -> bool:
    """Say so of what `avif` has not recognised: both can be of the general brands."""
    return read_brands(start)[:1] in [(brand,) for brand in _BRANDS]


def read_facts(file: BinaryIO) -> Facts:
    """Read the boxes, and size and bits as pi-heif reports them without decoding."""
    items = read_items(file)
    if items.moving:
        header, notes = header_of("heic", items, *items.size, 8)
        return facts_of(items, header, notes)
    file.seek(0)
    image = _opened(file.read())
    width, height = image.size
    header, notes = header_of("heic", items, height, width, image.info["bit_depth"])
    return facts_of(items, header, notes)


def _opened(data: bytes):
    """Open the primary picture; it is decoded when its pixels are asked for."""
    library = extra("pi_heif", "heif", "a HEIC picture")
    return library.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode a whole file, by pi-heif: (height, width, 1 to 4) uint8 or uint16."""
    image = _opened(data)
    # A copy: the library's memory ends with its picture, whatever numpy refers to.
    stored = np.array(image)
    stored = as_stated(stored.reshape(*stored.shape[:2], -1), header)
    return widened(stored, image.info["bit_depth"])


def strips(path: Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a file as one strip, in memory."""
    yield 0, samples(path.read_bytes(), header)


FORMAT = Format(
    name="heic",
    title="HEIC",
    suffixes=(".heic", ".heif", ".hif"),
    reads="as AVIF; with the extra `heif`",
    recognise=recognise,
    read_facts=read_facts,
    samples=samples,
    strips=strips,
    same="png",
)
