"""Bytes to pixels and back: one file a format, and what every format shares (EXIF, conversions, pictures on disk).

Nothing is damaged in silence: what cannot be carried is converted by a rule of `NOTES`, which the ledger names, or
refused. Orientation, colour profile, EXIF, alpha and bit depth survive. Densities (dots per inch) are not carried:
they would be untrue of an image of another size.

A new format is a file that ends with its `Format`, and a line in `FORMATS`.
"""

import io
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from imgtx.codecs import bmp, exif, jpeg, png, tiff, webp
from imgtx.codecs.convert import NOTES, Converter, oriented, profile_fits, reduced
from imgtx.codecs.format import Format, Writer
from imgtx.codecs.picture import METADATA_LIMIT, Carry, Facts, Header, Picture, pack_carry, unpack_carry
from imgtx.codecs.refusals import decoder_errors, foreign_error, header_errors
from imgtx.errors import ImageError, UsageError

__all__ = [
    "FORMATS", "NOTES", "SUFFIXES", "WRITABLE", "Carry", "Facts", "Format", "Header", "Picture", "Writer", "admit",
    "decode", "encode", "output_format", "output_metadata", "pack_carry", "read_facts", "read_header", "suffix_for",
    "unpack_carry", "writer_for",
]  # fmt: skip

FORMATS = {format.name: format for format in (png.FORMAT, jpeg.FORMAT, webp.FORMAT, tiff.FORMAT, bmp.FORMAT)}
# The format of each suffix, which is lower case with its dot.
SUFFIXES = {suffix: format.name for format in FORMATS.values() for suffix in format.suffixes}
WRITABLE = tuple(format.name for format in FORMATS.values() if format.writer)

_TITLES = [format.title for format in FORMATS.values()]
_READABLE = f"imgtx reads {', '.join(_TITLES[:-1])} and {_TITLES[-1]}: convert it to one of them"


def output_format(source_format: str, requested: str) -> str:
    """Return the format to write: `requested`, or with "same" that of the source (a BMP becomes a PNG)."""
    if requested == "same":
        return FORMATS[source_format].same or source_format
    if requested not in WRITABLE:
        raise UsageError(f"unknown format {requested!r}: expected one of same, {', '.join(WRITABLE)}")
    return requested


def suffix_for(format: str) -> str:
    """Return the suffix of an output's name, with its dot."""
    return FORMATS[format].suffixes[0]


def read_header(data: bytes) -> Header:
    """Read the dimensions and form of an encoded image without decoding it. Raises `ImageError`."""
    return read_facts(io.BytesIO(data)).header


def read_facts(file: BinaryIO) -> Facts:
    """Read the header, profile and EXIF of the image in a seekable binary file. Raises `ImageError`.

    Reasons: empty, not_an_image, animated or unsupported (the format is named), truncated or corrupt (the header
    itself), out_of_memory.
    """
    file.seek(0)
    start = file.read(32)
    if not start:
        raise ImageError("empty", "the file has 0 bytes; an image has more: check how it was written")
    format = next((format for format in FORMATS.values() if format.recognise(start)), None)
    if format is None:
        raise foreign_error(start, file, _READABLE)
    file.seek(0)
    with header_errors(format.name, _READABLE):
        facts = format.read_facts(file)
    header = facts.header
    if min(header.height, header.width) < 1:
        raise ImageError(
            "corrupt",
            f"the {format.name} header states {header.width} x {header.height} pixels; an image has one at least: "
            "repair or replace the file",
        )
    return replace(facts, icc=facts.icc[:METADATA_LIMIT])


def admit(facts: Facts, size: int, max_pixels: int) -> None:
    """Refuse by the header what must not be decoded: bombs, animations, and files cut short.

    `size` is the file's in bytes. Raises `ImageError` (too_large, animated, truncated).
    """
    header = facts.header
    if header.height * header.width > max_pixels:
        raise ImageError(
            "too_large",
            f"{header.width} x {header.height} = {header.height * header.width / 1e6:,.1f} MP; at most "
            f"{max_pixels / 1e6:,.1f} MP are decoded: raise max_pixels if the image really is that large",
        )
    if header.frames > 1:
        raise ImageError(
            "animated", f"a {header.format} of several frames or pages; imgtx takes one: split it"
        )
    if facts.end > size:
        raise ImageError(
            "truncated", f"{size} bytes of a {header.format} that states {facts.end}: fetch it again"
        )


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decode one image file. Raises `ImageError` for any fault in the bytes.

    Reasons: those of `read_facts` and `admit`, and truncated, corrupt or out_of_memory from the decoder.
    """
    file = io.BytesIO(data)
    facts = read_facts(file)
    admit(facts, len(data), max_pixels)
    header = facts.header
    format = FORMATS[header.format]
    with decoder_errors(header.format):
        format.check(file, facts)
        samples = format.samples(data, header)
        converter = Converter(facts)
        pixels, alpha = converter(samples)
    return Picture(
        np.ascontiguousarray(oriented(pixels, header.orientation)),
        None if alpha is None else np.ascontiguousarray(oriented(alpha, header.orientation)),
        converter.icc,
        exif.upright(facts.exif),
        header.format,
        converter.notes,
    )


def encode(picture: Picture, format: str, *, quality: int) -> tuple[bytes, tuple[str, ...]]:
    """Encode a picture as one of `WRITABLE`: (file bytes, notes of this step only).

    The same input gives the same bytes. `quality` 1..100 is for jpeg (4:4:4 from 90 on) and webp (100 is lossless).
    EXIF's own dimensions are set to the picture's. Raises `ImageError` (no_space_in_format) beyond a limit of the
    format, UsageError for an unknown format or quality.
    """
    height, width, _ = picture.pixels.shape
    writer = writer_for(format, height, width, quality)
    notes: list[str] = []
    icc, block = output_metadata(picture.icc, picture.exif, writer, picture.pixels.shape, notes)
    pixels, alpha = reduced(picture.pixels, picture.alpha, writer, notes)
    if picture.texts and not writer.texts:
        notes.append("text-dropped")
    ready = replace(picture, pixels=pixels, alpha=alpha, icc=icc, exif=block)
    data, more_notes = writer.encode(ready, quality)
    return data, (*notes, *more_notes)


def writer_for(format: str, height: int, width: int, quality: int) -> Writer:
    """Return the writer of `format`, checked before any work for a picture of this size and a quality.

    Raises UsageError for an unknown format or quality, `ImageError` (no_space_in_format) for a size that does not fit.
    """
    writer = FORMATS[format].writer if format in FORMATS else None
    if writer is None:
        raise UsageError(f"unknown format {format!r}: expected one of {', '.join(WRITABLE)}")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise UsageError(f"quality {quality!r}: expected a whole number from 1 to 100")
    if max(height, width) > writer.side_limit or not writer.fits(height, width):
        raise ImageError(
            "no_space_in_format",
            f"{width} x {height} pixels do not fit a {format} (sides up to {writer.side_limit:,}): write png or "
            "tiff",
        )
    return writer


def output_metadata(
    icc: bytes, block: bytes, writer: Writer, shape: tuple[int, ...], notes: list[str]
) -> tuple[bytes, bytes]:
    """Return the profile and EXIF block that a file of `shape` pixels may truly carry; losses go to `notes`."""
    height, width, channels = shape
    kept_icc = icc if writer.icc and profile_fits(icc, channels if writer.grey else 3) else b""
    kept_exif = exif.resized(exif.bare(block), height, width)
    if len(kept_exif) > writer.exif_limit:
        kept_exif = b""
    if icc and not kept_icc:
        notes.append("icc-dropped")
    if block and not kept_exif:
        notes.append("exif-dropped")
    return kept_icc, kept_exif
