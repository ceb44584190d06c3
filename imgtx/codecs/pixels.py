"""Bytes <-> image, with what must survive: orientation, colour profile, EXIF, alpha, bit depth.

Nothing is damaged in silence: what cannot be carried is converted by a rule of `NOTES`, which the ledger
names, or refused. libvips decodes PNG, JPEG and TIFF, here as in `imgtx.codecs.spool`: Pillow cuts 16 bit to 8,
refuses PNGs for the length of their texts, and keeps to itself that a JPEG's data were damaged. Pillow
decodes WebP (faster) and BMP (which libvips does not read) and encodes; `imgtx.codecs.lossless` writes PNG and TIFF.
Densities (dots per inch) are not carried: they would be untrue of an image of another size.
"""

import gc
import io
import re
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from textwrap import shorten
from types import ModuleType
from typing import BinaryIO

import numpy as np

from imgtx.codecs import exif
from imgtx.codecs.checksums import check_deflated, check_png
from imgtx.codecs.convert import NOTES, Converter, oriented, profile_fits, reduced
from imgtx.codecs.header import examine, read_header
from imgtx.codecs.lossless import Raster, write_png, write_tiff
from imgtx.codecs.picture import Facts, Header
from imgtx.errors import ImageError, UsageError

__all__ = [
    "NOTES", "SUFFIXES", "WRITABLE", "Carry", "Header", "Picture", "decode", "encode", "output_format",
    "pack_carry", "read_header", "suffix_for", "unpack_carry",
]  # fmt: skip

SUFFIXES = {
    ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".webp": "webp",
    ".tif": "tiff", ".tiff": "tiff", ".bmp": "bmp", ".dib": "bmp",
}  # fmt: skip
WRITABLE = ("png", "jpeg", "webp", "tiff", "bmp")

# The largest side, in pixels. libjpeg stops short of the 65,535 that JPEG itself allows.
SIDE_LIMITS = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383, "tiff": 2**31 - 1, "bmp": 2**31 - 1}
# libwebp's effort, 0 to 6. Its default, 4, takes 2.3 times as long at quality 90 (bench/codecs.py), for files
# that are 3 % smaller and 0.4 dB nearer.
WEBP_METHOD = 2

_BMP_BYTES = 2**32 - 2**10
_JPEG_EXIF_BYTES = 65_533 - len(exif.PREFIX)


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright.

    `pixels` (height, width, 1 or 3) and `alpha` (height, width) or None, both uint8 in [0, 255] or both
    uint16 in [0, 65535]; alpha is straight. `icc` is the profile of `pixels` or b"" (then sRGB or grey by
    convention), `exif` a bare block or b"", `format` that of the source, `notes` words of `NOTES`.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    icc: bytes
    exif: bytes
    format: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Carry:
    """What travels beside the pixels through the pipeline; fields as in `Picture`."""

    icc: bytes
    exif: bytes
    format: str


def output_format(source_format: str, requested: str) -> str:
    """The format to write: `requested`, or with "same" the source's (a BMP becomes a PNG)."""
    if requested == "same":
        return "png" if source_format == "bmp" else source_format
    if requested not in WRITABLE:
        raise UsageError(
            f"format {requested!r} was asked for; imgtx writes same, {', '.join(WRITABLE)}: pick one"
        )
    return requested


def suffix_for(format: str) -> str:
    """The suffix of an output name, with its dot."""
    return {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif", "bmp": ".bmp"}[format]


def pack_carry(picture: Picture) -> bytes:
    """`Carry` as bytes for the `carry` column; the inverse is `unpack_carry`."""
    name = picture.format.encode()
    return (
        struct.pack("<III", len(name), len(picture.icc), len(picture.exif))
        + name
        + picture.icc
        + picture.exif
    )


def unpack_carry(packed: bytes) -> Carry:
    """The inverse of `pack_carry`."""
    name, icc, block = struct.unpack_from("<III", packed)
    if len(packed) != 12 + name + icc + block:
        raise ValueError(f"a carry of {len(packed)} bytes; its lengths ask for {12 + name + icc + block}")
    body = packed[12:]
    return Carry(bytes(body[name : name + icc]), bytes(body[name + icc :]), bytes(body[:name]).decode())


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decode one image file. Raises `ImageError` for everything that is wrong with the bytes.

    Reasons: empty, not_an_image, too_large (more than `max_pixels`, from the header), animated, unsupported,
    truncated, corrupt, out_of_memory.
    """
    file = io.BytesIO(data)
    facts = examine(file)
    admit(facts, max_pixels)
    header = facts.header
    if facts.end > len(data):
        raise ImageError(
            "truncated", f"{len(data)} bytes of a {header.format} that states {facts.end}: fetch it again"
        )
    with decoder_errors(header.format):
        if header.format == "png":
            check_png(file)
        check_deflated(file, facts)
        by_pillow = header.format in ("webp", "bmp")
        samples = _samples_pillow(file, header) if by_pillow else _samples_vips(data)
        if samples.shape[:2] != header.stored_size or samples.itemsize * 8 != header.depth:
            raise ValueError(
                f"the pixels are {samples.shape} {samples.dtype}, its header {header.stored_size}"
            )
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


def admit(facts: Facts, max_pixels: int) -> None:
    """Refuse from the header what must not be decoded: a bomb, an animation."""
    header = facts.header
    if header.height * header.width > max_pixels:
        raise ImageError(
            "too_large",
            f"{header.width} x {header.height} = {header.height * header.width / 1e6:,.1f} MP; at most "
            f"{max_pixels / 1e6:,.1f} MP are admitted: raise max_pixels if the image is honest",
        )
    if header.frames > 1:
        raise ImageError(
            "animated", f"a {header.format} of several frames or pages; imgtx takes one: split it"
        )


@contextmanager
def decoder_errors(format: str) -> Iterator[None]:
    """Turns whatever a decoder raises into `ImageError`; decoders raise anything at all."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(
            "out_of_memory", f"no memory to decode the {format}: give the worker more"
        ) from error
    except Exception as error:
        lines = dict.fromkeys(str(error).splitlines())  # libvips says the same of every strip
        message = shorten(" ".join(lines), 400) or type(error).__name__
        if isinstance(error, EOFError) or any(word in message.lower() for word in _TRUNCATED):
            reason, advice = "truncated", "ends before its pixels do"
        else:
            reason, advice = "corrupt", "cannot be decoded"
        raise ImageError(
            reason, f"the {format} {advice} ({message}): fetch or make the file again"
        ) from error


_TRUNCATED = (
    "truncated",
    "premature",
    "end of file",
    "end of stream",
    "not enough",
    "unexpected end",
    "incomplete",
)


def _samples_pillow(file: io.BytesIO, header: Header) -> np.ndarray:
    """(height, width, bands) uint8 as stored.

    Opened by class: `Image.open` checks bombs by a global of the process.
    """
    from PIL import BmpImagePlugin, Image, WebPImagePlugin

    plugins: dict[str, Callable[[BinaryIO], Image.Image]] = {
        "webp": WebPImagePlugin.WebPImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
    }
    file.seek(0)
    image = plugins[header.format](file)
    image.load()
    mode = ("L" if header.channels == 1 else "RGB") + ("A" if header.alpha else "")
    if image.mode != mode:
        image = image.convert(mode)
    samples = np.asarray(image)
    return samples[:, :, None] if samples.ndim == 2 else samples


def _samples_vips(data: bytes) -> np.ndarray:
    """(height, width, bands) uint8 or uint16 as stored."""
    with vips_step() as library:
        image = library.Image.new_from_buffer(data, "", access="sequential", fail_on="error")
        return image.numpy().reshape(image.height, image.width, image.bands)


@contextmanager
def vips_step() -> Iterator[ModuleType]:
    """libvips for one step of decoding; raises damage that libvips only writes down and goes on.

    It does so in TIFF's tiles and in JPEG even with `fail_on`. It has one error text for the whole process. So
    steps exclude one another, and each begins by clearing it: else one picture's errors would be told of the
    next.
    """
    library = vips()
    with _VIPS_ALONE, _no_collection():
        library.vips_lib.vips_error_clear()
        yield library
        written = library.Error("the decoder went on after an error")  # takes the text and clears it
        if any(line and not _HARMLESS.search(line) for line in written.detail.splitlines()):
            raise written


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector stays out: pyvips logs libvips' warnings in libvips' own threads, and a collection
    that begins there and frees another picture aborts the process."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


_VIPS_ALONE = threading.Lock()
# Of libjpeg's warnings those that leave the pixels whole: odd versions and headers, bytes behind the last pixel.
_HARMLESS = re.compile(
    r"^VipsJpeg: (?!Corrupt JPEG data|Premature)|extraneous bytes before marker 0xd9$", re.IGNORECASE
)


def vips() -> ModuleType:
    """pyvips, imported when first needed, without its cache of operations, which keeps pictures alive."""
    import pyvips

    pyvips.cache_set_max(0)
    return pyvips


def encode(picture: Picture, format: str, *, quality: int) -> tuple[bytes, tuple[str, ...]]:
    """Encode as png, jpeg, webp, tiff or bmp: (file bytes, notes of this step only). The same input, the same
    bytes.

    `quality` 1..100 is for jpeg (4:4:4 from 90 on) and webp (100 is lossless). EXIF's own dimensions are set
    to the picture's. Raises `ImageError("no_space_in_format")` beyond a limit of the format.
    """
    height, width, channels = picture.pixels.shape
    check_output(format, height, width, quality)
    notes: list[str] = []
    icc, block = output_metadata(picture.icc, picture.exif, format, picture.pixels.shape, notes)
    out = io.BytesIO()
    if format in ("png", "tiff"):
        has_alpha = picture.alpha is not None
        depth = picture.pixels.itemsize * 8
        raster = Raster(height, width, channels + has_alpha, depth, has_alpha, icc, block)
        if format == "png":
            write_png(out, _strips(picture, raster), raster)
        else:
            notes += write_tiff(out, _strips(picture, raster), raster)
        return out.getvalue(), tuple(notes)
    pixels, alpha = reduced(picture.pixels, picture.alpha, format, notes)
    _write_pillow(out, replace(picture, pixels=pixels, alpha=alpha, icc=icc, exif=block), format, quality)
    return out.getvalue(), tuple(notes)


def check_output(format: str, height: int, width: int, quality: int) -> None:
    """Refuse what cannot be written, before any work: an unknown format, a quality, a size."""
    if format not in WRITABLE:
        raise UsageError(f"format {format!r} was asked for; imgtx writes {', '.join(WRITABLE)}: pick one")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise UsageError(f"quality {quality!r} was asked for; legal is a whole number from 1 to 100")
    limit = SIDE_LIMITS[format]
    if max(height, width) > limit or (format == "bmp" and height * (width * 3 + 3) > _BMP_BYTES):
        raise ImageError(
            "no_space_in_format",
            f"{width} x {height} pixels do not fit a {format} (sides up to {limit:,}): write png or tiff",
        )


def output_metadata(
    icc: bytes, block: bytes, format: str, shape: tuple[int, int, int], notes: list[str]
) -> tuple[bytes, bytes]:
    """The profile and EXIF that a file of `format` and `shape` may truly carry; losses go to `notes`."""
    height, width, channels = shape
    space = 3 if format == "webp" else channels
    kept_icc = icc if format != "bmp" and profile_fits(icc, space) else b""
    kept_exif = b"" if format == "bmp" else exif.resized(exif.bare(block), height, width)
    if format == "jpeg" and len(kept_exif) > _JPEG_EXIF_BYTES:
        kept_exif = b""
    if icc and not kept_icc:
        notes.append("icc-dropped")
    if block and not kept_exif:
        notes.append("exif-dropped")
    return kept_icc, kept_exif


def _strips(picture: Picture, raster: Raster) -> Iterator[np.ndarray]:
    for top in range(0, raster.height, raster.rows_per_strip):
        rows = picture.pixels[top : top + raster.rows_per_strip]
        if picture.alpha is None:
            yield rows
        else:
            yield np.concatenate([rows, picture.alpha[top : top + raster.rows_per_strip, :, None]], axis=2)


def _write_pillow(out: io.BytesIO, picture: Picture, format: str, quality: int) -> None:
    from PIL import BmpImagePlugin, Image, JpegImagePlugin, WebPImagePlugin

    samples = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    kept = {"icc_profile": picture.icc or None, "exif": exif.PREFIX + picture.exif if picture.exif else b""}
    if format == "bmp":
        image.save(out, BmpImagePlugin.BmpImageFile.format)
    elif format == "jpeg":
        chroma = 0 if quality >= 90 else 2
        image.save(out, JpegImagePlugin.JpegImageFile.format, quality=quality, subsampling=chroma, **kept)
    else:
        whole = quality == 100
        image.save(
            out,
            WebPImagePlugin.WebPImageFile.format,
            quality=quality,
            method=WEBP_METHOD,
            lossless=whole,
            exact=whole,
            **kept,
        )
