"""BMP: header, decoder and writer. https://learn.microsoft.com/windows/win32/gdi/bitmap-storage

Pillow decodes it, whole: libvips does not read BMP. The writer takes rows, because Pillow's wants the whole picture.
"""

import io
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from imgtx.codecs.convert import from_pillow
from imgtx.codecs.format import Format, Writer
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.metadata.density import Density, density_of
from imgtx.codecs.picture import METADATA_LIMIT, Facts, Header, dropped
from imgtx.codecs.rows import Raster, in_memory, on_disk

# The lengths of the headers that follow the 14 bytes of the file's own.
_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_START = 14 + 40
# Offsets have 32 bits; the margin covers header and palette.
_LARGEST_BYTES = 2**32 - 2**10


def recognise(start: bytes) -> bool:
    is_long = len(start) >= 26
    return start.startswith(b"BM") and is_long and struct.unpack_from("<I", start, 14)[0] in _HEADERS


def read_facts(file: BinaryIO) -> Facts:
    """Read the header by Pillow's plug-in."""
    from PIL.BmpImagePlugin import BmpImageFile

    start = file.read(14 + 124)
    # Pixels per metre, which the oldest header lacks.
    x, y = struct.unpack_from("<ii", start.ljust(54, b"\0"), 38) if start[14] >= 40 else (0, 0)
    # The profile itself, or the path of one.
    embedded, linked = (start[14] == 124 and start[70:74] == kind for kind in (b"DEBM", b"KNIL"))
    icc = b""
    if embedded:
        offset, length = struct.unpack_from("<II", start, 14 + 112)
        file.seek(14 + offset)
        icc = file.read(min(length, METADATA_LIMIT))
    file.seek(0)
    image = BmpImageFile(file)
    form = {"1": "1bit", "L": "grey", "P": "palette", "RGB": "rgb", "RGBA": "rgb"}[image.mode]
    header = Header(
        "bmp",
        image.height,
        image.width,
        channels=1 if image.mode in ("1", "L") else 3,
        depth=8,
        alpha=image.mode == "RGBA",
        frames=1,
        orientation=1,
        form=form,
    )
    return Facts(
        header,
        icc,
        notes=dropped(icc=linked or (embedded and not icc)),
        metadata=Metadata(density_of(x, y, "metre")),
    )


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode a whole file, by Pillow: (height, width, bands) uint8 as stored."""
    from PIL.BmpImagePlugin import BmpImageFile

    # Not Image.open: it checks for bombs by a setting of the whole process.
    return from_pillow(BmpImageFile(io.BytesIO(data)), header)


def strips(path: Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a file as one strip, in memory; it has at most 4 GB."""
    yield 0, samples(path.read_bytes(), header)


def fits(height: int, width: int) -> bool:
    """Return whether a picture of 24 bits a pixel stays below 4 GB."""
    return height * (width * 3 + 3) <= _LARGEST_BYTES


def holds_density(density: Density) -> bool:
    """Return whether the pixels per metre fit 31 bits; the shape of pixels alone has no place."""
    return bool(density.unit) and max(density.per("metre").rounded()) < 2**31


def write_rows(file: BinaryIO, rows: Iterable[np.ndarray], raster: Raster) -> tuple[str, ...]:
    """Write 8-bit `rows`, arrays (any number, width, 1 or 3), top to bottom, as one BMP.

    Grey has 8 bits and a palette, colour 24 bits in the order B, G, R. The bottom row is stored first, as readers
    expect.
    """
    stride = -(-raster.row_bytes // 4) * 4
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256)) if raster.bands == 1 else b""
    first, size, colours = _START + len(palette), stride * raster.height, len(palette) // 4
    sides, bits = (raster.width, raster.height), 8 * raster.bands
    file.write(struct.pack("<2sIII", b"BM", first + size, 0, first))
    density = raster.metadata.density
    per_metre = density.per("metre").rounded() if density else (0, 0)
    file.write(struct.pack("<IiiHHIIiiII", 40, *sides, 1, bits, 0, size, *per_metre, colours, colours))
    file.write(palette)
    at = first + size
    for strip in rows:
        lines = np.zeros((len(strip), stride), np.uint8)
        pixels = lines[:, : raster.row_bytes].reshape(strip.shape)
        # Band by band: numpy copies a reversed last axis at half the speed.
        for band in range(raster.bands):
            pixels[:, :, -1 - band] = strip[::-1, :, band]
        at -= len(lines) * stride
        file.seek(at)
        file.write(lines.data)
    return ()


FORMAT = Format(
    name="bmp",
    title="BMP",
    suffixes=(".bmp", ".dib"),
    reads="1 to 32 bits, RLE, alpha",
    recognise=recognise,
    read_facts=read_facts,
    samples=samples,
    strips=strips,
    writer=Writer(
        encode=in_memory(write_rows),
        write=on_disk(write_rows),
        fits=fits,
        grey=True,
        holds_density=holds_density,
    ),
    same="png",
)
