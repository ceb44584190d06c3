"""JPEG XL: header, decoder and encoder, by pylibjxl. https://jpeg.org/jpegxl/

It is read and written with the extra `jxl`: pylibjxl is libjxl under the BSD licence, young and small. It decodes 8
bits only, so that deeper pictures are refused instead of cut. JPEG XL can only be decoded and encoded whole.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

import imgtx.codecs.metadata.exif as exif
from imgtx.codecs.convert import as_stated
from imgtx.codecs.extras import extra
from imgtx.codecs.format import Format, Writer, holds_any
from imgtx.codecs.formats.boxes import boxes_of_file
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.picture import Facts, Header, Picture, dropped
from imgtx.codecs.rows import Raster, whole_picture
from imgtx.errors import ImageError

_CONTAINER, _CODESTREAM = b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"
# libjxl's effort, 1 to 10. Its default, 7, takes several times as long for some per cent.
_EFFORT = 4
# At this quality files are lossless.
_LOSSLESS_QUALITY = 100


def recognise(start: bytes) -> bool:
    return start.startswith((_CONTAINER, _CODESTREAM))


def read_facts(file: BinaryIO) -> Facts:
    """Read the header by libjxl, which decodes nothing. Raises `ImageError` (unsupported) for other forms.

    The profile and what the file says in EXIF are added by `complete`, because they come with the pixels.
    """
    data = file.read()
    try:
        stated = _library().probe(data)
    except RuntimeError as error:
        raise EOFError(str(error)) from error
    named = f"a JPEG XL of {stated['channels']} channels of {stated['bits_per_sample']} bits"
    if stated["bits_per_sample"] > 8 or stated["exponent_bits_per_sample"]:
        raise ImageError("unsupported", f"{named}; its library decodes 8 bits: convert it to PNG or TIFF")
    extra_channels = stated["channels"] - stated["color_channels"] - stated["has_alpha"]
    if extra_channels or stated["color_channels"] not in (1, 3):
        raise ImageError("unsupported", f"{named}; imgtx reads grey and RGB with alpha: convert it to PNG")
    header = Header(
        "jxl",
        stated["height"],
        stated["width"],
        channels=stated["color_channels"],
        depth=8,
        alpha=stated["has_alpha"],
        frames=2 if stated["have_animation"] else 1,
        # The decoder turns it.
        orientation=1,
        form="grey" if stated["color_channels"] == 1 else "rgb",
    )
    return Facts(header, end=_end(file) if data.startswith(_CONTAINER) else 0)


def _library():
    return extra("pylibjxl", "jxl", "a JPEG XL picture")


def _end(file: BinaryIO) -> int:
    """Return the end of the last whole box; that of a box that is cut is beyond the file's."""
    end = 0
    try:
        for box in boxes_of_file(file):
            end = box.at + box.length
    except EOFError:
        return file.seek(0, os.SEEK_END) + 1
    return end


def complete(data: bytes, facts: Facts) -> Facts:
    """Add the profile, EXIF and XMP."""
    _, found = _decoded(data)
    block = exif.bare(found.get("exif", b""))
    notes = dropped(exif="exif" in found and not block)
    metadata = Metadata(exif.density(block), found.get("xmp", b""))
    return replace(
        facts, icc=found.get("icc", b""), exif=block, notes=(*facts.notes, *notes), metadata=metadata
    )


def _decoded(data: bytes) -> tuple[np.ndarray, dict[str, bytes]]:
    with _library().JXL(threads=1) as decoder:
        return decoder.decode(data, metadata=True)


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode a whole file: (height, width, 1 to 4) uint8."""
    stored, _ = _decoded(data)
    return as_stated(stored.reshape(*stored.shape[:2], -1), header)


def strips(path: Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a file as one strip, in memory."""
    yield 0, samples(path.read_bytes(), header)


def encode(picture: Picture, quality: int) -> tuple[bytes, tuple[str, ...]]:
    """Encode in memory."""
    notes: tuple[str, ...]
    pixels, notes = picture.pixels, ()
    if picture.alpha is not None:
        if pixels.shape[2] == 1:
            # The library takes no grey with alpha.
            pixels, notes = pixels.repeat(3, axis=2), ("grey->rgb",)
        pixels = np.dstack([pixels, picture.alpha])
    with _library().JXL(threads=1) as encoder:
        data = encoder.encode(
            np.ascontiguousarray(pixels),
            effort=_EFFORT,
            distance=_distance(quality),
            lossless=quality == _LOSSLESS_QUALITY,
            exif=picture.exif or None,
            xmp=picture.metadata.xmp or None,
            icc=picture.icc or None,
        )
    return data, notes


def _distance(quality: int) -> float:
    """Return libjxl's distance for a quality 1..100, as its own tools map them."""
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality**2 - 23 / 20 * quality + 25


def write(path: Path, rows: Iterable[np.ndarray], raster: Raster, quality: int) -> tuple[str, ...]:
    """Encode the same on disk; the picture is held in memory."""
    data, notes = encode(whole_picture(rows, raster, "jxl"), quality)
    path.write_bytes(data)
    return notes


FORMAT = Format(
    name="jxl",
    title="JPEG XL",
    suffixes=(".jxl",),
    reads="8 bits, grey and RGB, alpha, turned as the file says, recompressed JPEGs; with the extra `jxl`",
    recognise=recognise,
    read_facts=read_facts,
    complete=complete,
    samples=samples,
    strips=strips,
    writer=Writer(
        encode=encode,
        write=write,
        alpha=True,
        grey=True,
        icc=True,
        exif_limit=2**31 - 1,
        holds_xmp=holds_any,
        needs=("pylibjxl", "jxl"),
    ),
)
