"""Bytes to pixels and back: `formats`, `metadata`, and what every format shares (conversions, pictures on disk).

Nothing is damaged in silence: what cannot be carried is converted by a rule of `NOTES`, which the ledger names, or
refused. Orientation, colour profile, EXIF, XMP, IPTC, alpha, bit depth and the size on paper survive.

A new format is a file of `formats` that ends with its `Format`, and a line in `FORMATS`.
"""

import io
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from imgtx.codecs import recovery
from imgtx.codecs.carried import output_metadata, upright_metadata
from imgtx.codecs.colour import shown_by
from imgtx.codecs.convert import NOTES, Converter, oriented, reduced
from imgtx.codecs.extras import check_installed
from imgtx.codecs.format import Format, Writer
from imgtx.codecs.formats import (
    avif,
    bmp,
    gif,
    heic,
    ico,
    jpeg,
    jpeg2000,
    jxl,
    png,
    ppm,
    psd,
    tga,
    tiff,
    webp,
)
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.metadata.provenance import Maker
from imgtx.codecs.picture import (
    METADATA_LIMIT,
    Carry,
    Facts,
    Header,
    Picture,
    carry_of,
    pack_carry,
    unpack_carry,
)
from imgtx.codecs.refusals import decoder_errors, foreign_error, header_errors
from imgtx.errors import ImageError, UsageError

__all__ = [
    "FORMATS", "NOTES", "SUFFIXES", "WRITABLE", "Carry", "Facts", "Format", "Header", "Maker", "Metadata", "Picture",
    "Writer", "admit", "carry_of", "check_colour", "decode", "encode", "output_format", "pack_carry", "read_facts",
    "read_header", "suffix_for", "unpack_carry", "writer_for",
]  # fmt: skip

_ALL = (png, jpeg, webp, tiff, bmp, avif, heic, jxl, gif, jpeg2000, psd, ppm, ico, tga)
# In the order in which they are asked whether they recognise a file: TGA, which has no signature, comes last, and HEIC
# behind AVIF, with which it shares signatures.
FORMATS = {module.FORMAT.name: module.FORMAT for module in _ALL}
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
    writer = FORMATS[requested].writer
    if writer and writer.needs:
        module, name = writer.needs
        check_installed(module, name, f"--format {requested}")
    return requested


def suffix_for(format: str) -> str:
    """Return the suffix of an output's name, with its dot."""
    return FORMATS[format].suffixes[0]


def read_header(data: bytes, *, accept_damage: bool = False) -> Header:
    """Read the dimensions and form of an encoded image without decoding it. Raises `ImageError`.

    accept_damage: as for `decode`.
    """
    return readable_facts(io.BytesIO(data), accept_damage=accept_damage).header


def readable_facts(file: BinaryIO, *, accept_damage: bool) -> Facts:
    """Return `read_facts`. accept_damage: a header that ends too early is unrecoverable, as nothing follows it."""
    try:
        return read_facts(file)
    except ImageError as error:
        if accept_damage and error.reason == "truncated":
            raise recovery.unrecoverable(error, "its pixels are behind that") from error
        raise


def read_facts(file: BinaryIO) -> Facts:
    """Read the header, profile and EXIF of the image in a seekable binary file. Raises `ImageError`.

    Reasons: empty, not_an_image, animated or unsupported (the format is named), which_picture, truncated or corrupt
    (the header itself), out_of_memory.
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
    """Refuse by the header what must not be decoded: bombs, animations, several pages, and files cut short.

    `size` is the file's in bytes. Raises `ImageError` (too_large, animated, multi_page, truncated).
    """
    header = facts.header
    if header.height * header.width > max_pixels:
        raise ImageError(
            "too_large",
            f"{header.width} x {header.height} = {header.height * header.width / 1e6:,.1f} MP; at most "
            f"{max_pixels / 1e6:,.1f} MP are decoded: raise max_pixels if the image really is that large",
        )
    if header.frames > 1:
        if header.format == "tiff":
            raise ImageError(
                "multi_page", "a TIFF of several pages; imgtx takes one picture a file: split it"
            )
        raise ImageError("animated", f"the {header.format} has several frames; imgtx takes one: extract it")
    if facts.end > size:
        raise ImageError(
            "truncated", f"{size} bytes of a {header.format} that states {facts.end}: fetch it again"
        )


def decode(data: bytes, *, max_pixels: int, accept_damage: bool = False) -> Picture:
    """Decode one image file. Raises `ImageError` for any fault in the bytes.

    Reasons: those of `read_facts` and `admit`, and truncated, corrupt or out_of_memory from the decoder. accept_damage:
    take what can be decoded of a truncated file (`imgtx.codecs.recovery`); where nothing can, the reason is
    unrecoverable.
    """
    missing = 0.0
    facts = readable_facts(io.BytesIO(data), accept_damage=accept_damage)
    data += facts.tail
    try:
        admit(facts, len(data), max_pixels)
        samples = _samples(data, facts)
        facts = completed(data, facts)
    except ImageError as error:
        if not accept_damage or error.reason != "truncated":
            raise
        with decoder_errors(facts.header.format):
            data, header = decodable(data, facts, lenient=True)
        found = recovery.assess(data, replace(facts, header=header), error)
        facts, missing = found.facts, found.missing
        samples = recovery.samples(data, facts)
    header = facts.header
    with decoder_errors(header.format):
        converter = Converter(facts)
        pixels, alpha = converter(samples)
    block, metadata = upright_metadata(facts)
    return Picture(
        np.ascontiguousarray(oriented(pixels, header.orientation)),
        None if alpha is None else np.ascontiguousarray(oriented(alpha, header.orientation)),
        converter.icc,
        block,
        header.format,
        converter.notes,
        colour=converter.colour,
        metadata=metadata,
        missing=missing,
    )


def _samples(data: bytes, facts: Facts) -> np.ndarray:
    """Check and decode a file without accepting any damage: (height, width, bands) as stored."""
    format = FORMATS[facts.header.format]
    with decoder_errors(format.name, cut=facts.cut):
        format.check(io.BytesIO(data), facts)
        return format.samples(*decodable(data, facts))


def decodable(data: bytes, facts: Facts, *, lenient: bool = False) -> tuple[bytes, Header]:
    """Return a file as its format's decoder takes it, and its header: as it is, or rewritten (`Format.rewrite`)."""
    format = FORMATS[facts.header.format]
    if not (facts.foreign and format.rewrite):
        return data, facts.header
    target = io.BytesIO()
    format.rewrite(io.BytesIO(data), target, lenient=lenient)
    return target.getvalue(), alone(facts.header)


def alone(header: Header) -> Header:
    """Return the header of a picture that is the only one in its file."""
    return replace(header, page=0, sub=-1)


def completed(data: bytes, facts: Facts) -> Facts:
    """Return what is known of an admitted file once its decoder has been asked (`Format.complete`)."""
    format = FORMATS[facts.header.format]
    if format.complete is None:
        return facts
    with decoder_errors(format.name, cut=facts.cut):
        return format.complete(data, facts)


def encode(
    picture: Picture, format: str, *, quality: int, maker: Maker | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """Encode a picture as one of `WRITABLE`: (file bytes, notes of this step only).

    The same input gives the same bytes. `quality` 1..100 is for jpeg (4:4:4 from 90 on) and webp (100 is lossless).
    Sizes in its metadata are set to the picture's. `maker` is said in XMP, where the format holds it.

    Raises `ImageError` for a size beyond a limit of the format (no_space_in_format) and for colours that it cannot show
    (unsupported), UsageError for an unknown format or quality.
    """
    height, width, _ = picture.pixels.shape
    writer = writer_for(format, height, width, quality)
    notes: list[str] = []
    shown = shown_by(writer, format, picture.icc, picture.colour, picture.pixels.shape[2])
    notes += shown.notes
    block, metadata, more_notes = output_metadata(picture, writer, format, (height, width), maker)
    notes += more_notes
    pixels, alpha = reduced(picture.pixels, picture.alpha, writer, shown.convert, notes)
    if picture.texts and not writer.texts:
        notes.append("text-dropped")
    ready = replace(
        picture, pixels=pixels, alpha=alpha, icc=shown.icc, exif=block, colour=shown.chunks, metadata=metadata
    )
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


def check_colour(picture: Picture | Carry, format: str) -> None:
    """Raise `ImageError` (unsupported) for a picture whose colours a format cannot show, before any work is done."""
    writer = FORMATS[format].writer
    channels = picture.channels if isinstance(picture, Carry) else picture.pixels.shape[2]
    if writer:
        shown_by(writer, format, picture.icc, picture.colour, channels)
