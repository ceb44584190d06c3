"""What an encoded image says of itself before a pixel is decoded: form, size, depth, profile, EXIF.

One parser a format, none of which decodes or allocates by the stated size, so that a decompression bomb costs
nothing. `examine` reads from a seekable binary file and therefore also serves pictures that do not fit in
memory.
"""

import io
import struct
import zlib
from dataclasses import replace
from typing import BinaryIO

from imgtx.codecs import exif
from imgtx.codecs.picture import Facts, Header, displayed
from imgtx.codecs.tiff_header import parse_tiff
from imgtx.errors import ImageError

READ_FORMATS = ("png", "jpeg", "webp", "tiff", "bmp")
_METADATA_LIMIT = 16 * 2**20  # bytes of one profile or EXIF block; a larger one is an attack or an accident
_LEGAL = "imgtx reads PNG, JPEG, WebP, TIFF and BMP: convert it to one of them"


def read_header(data: bytes) -> Header:
    """Dimensions and form of an encoded image without decoding it. Raises `ImageError`."""
    return examine(io.BytesIO(data)).header


def examine(file: BinaryIO) -> Facts:
    """Header, profile and EXIF of the image in a seekable binary file. Raises `ImageError`.

    Reasons: empty, not_an_image, unsupported (form named), truncated or corrupt (the header itself).
    """
    file.seek(0)
    start = file.read(32)
    if not start:
        raise ImageError("empty", "the file has 0 bytes; an image has some: look at how it was written")
    kind = _sniff(start)
    if kind not in READ_FORMATS:
        _refuse_foreign(kind, file)
    file.seek(0)
    try:
        facts = _PARSERS[kind](file)
    except ImageError:
        raise
    except (struct.error, EOFError) as error:
        raise ImageError(
            "truncated", f"the {kind} header ends too early ({error}): fetch the file again"
        ) from error
    except MemoryError as error:
        raise ImageError("out_of_memory", f"no memory to read the {kind} header: {error}") from error
    except (
        Exception
    ) as error:  # decoders raise anything: SyntaxError, KeyError, OverflowError, warnings as errors
        raise _header_error(kind, error) from error
    if min(facts.header.height, facts.header.width) < 1:
        raise ImageError(
            "corrupt", f"the {kind} header states {facts.header.width} x {facts.header.height} pixels"
        )
    return replace(facts, icc=facts.icc[:_METADATA_LIMIT])


def _header_error(kind: str, error: Exception) -> ImageError:
    message = str(error) or type(error).__name__
    if "cannot handle" in message or "Unsupported" in message:
        return ImageError("unsupported", f"this {kind} ({message}) cannot be read; {_LEGAL}")
    if "truncated" in message.lower():
        return ImageError("truncated", f"the {kind} header ends too early ({message}): fetch the file again")
    return ImageError("corrupt", f"the {kind} header cannot be read ({message}): repair or replace the file")


def _sniff(start: bytes) -> str:
    """The format by content; names are never asked. "" when it is no image we know of."""
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "webp"
    if start[4:8] == b"ftyp" and start[8:12] in (
        b"avif",
        b"avis",
        b"heic",
        b"heix",
        b"mif1",
        b"msf1",
        b"hevc",
    ):
        return "avif/heic"
    signatures = {
        b"\x89PNG\r\n\x1a\n": "png",
        b"\xff\xd8\xff": "jpeg",
        b"II*\0": "tiff",
        b"MM\0*": "tiff",
        b"II+\0": "tiff",  # with 64-bit offsets
        b"MM\0+": "tiff",
        b"GIF8": "gif",
        b"8BPS": "psd",
        b"\0\0\0\x0cjP  ": "jpeg 2000",
        b"\0\0\0\x0cJXL ": "jpeg xl",
        b"\xff\x0a": "jpeg xl",
        b"\x76\x2f\x31\x01": "openexr",
        b"\0\0\x01\0": "ico",
    }
    for signature, kind in signatures.items():
        if start.startswith(signature):
            return kind
    if (
        start.startswith(b"BM")
        and len(start) >= 26
        and struct.unpack_from("<I", start, 14)[0] in _BMP_HEADERS
    ):
        return "bmp"
    return ""


def _refuse_foreign(kind: str, file: BinaryIO) -> None:
    if kind == "gif":
        from PIL.GifImagePlugin import GifImageFile

        file.seek(0)
        try:
            animated = GifImageFile(file).is_animated
        except Exception as error:
            raise _header_error("gif", error) from error
        if animated:
            raise ImageError("animated", f"an animated GIF; imgtx takes one frame: extract it. {_LEGAL}")
    if kind:
        raise ImageError("unsupported", f"a {kind} image; {_LEGAL}")
    file.seek(0)
    start = file.read(64).lstrip().lower()
    what = "an HTML page" if start.startswith((b"<!doctype html", b"<html")) else "not an image"
    raise ImageError("not_an_image", f"the bytes are {what} (they begin {start[:12]!r}); {_LEGAL}")


# PNG: https://www.w3.org/TR/png-3/


def _png(file: BinaryIO) -> Facts:
    file.seek(8)
    width = height = depth = colour = -1
    chunks: dict[bytes, bytes] = {}
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        body = file.tell()
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", file.read(10))
        elif kind == b"tRNS" and (b"IDAT" in chunks or not _fits(length, colour)):
            chunks[b"stray tRNS"] = b""  # decoders pass over it
        elif kind == b"iTXt" and file.read(min(length, 18)) == b"XML:com.adobe.xmp\0":
            chunks[_PNG_XMP] = b""
        elif kind not in chunks:
            chunks[kind] = file.read(length) if kind in _PNG_KEPT and length <= _METADATA_LIMIT else b""
        file.seek(body + length + 4)
        if kind == b"IEND":
            break
    if width < 0:
        raise EOFError("no IHDR chunk")
    if colour not in (0, 2, 3, 4, 6) or depth not in (1, 2, 4, 8, 16):
        raise ValueError(f"colour type {colour} at {depth} bit")
    block = exif.bare(chunks.get(b"eXIf", b""))
    turned = exif.orientation(block)
    header = Header(
        "png",
        *displayed(height, width, turned),
        channels=1 if colour in (0, 4) else 3,
        depth=16 if depth == 16 else 8,
        alpha=colour in (4, 6) or b"tRNS" in chunks,
        frames=_apng_frames(chunks),
        orientation=turned,
        form="palette" if colour == 3 else "grey" if colour in (0, 4) else "rgb",
    )
    if colour == 0 and depth < 8:
        header = replace(header, form="1bit" if depth == 1 else "lowbit")
    icc = _png_icc(chunks.get(b"iCCP", b""))
    return Facts(header, icc, block, _png_notes(chunks, icc, block))


_PNG_KEPT = (b"eXIf", b"iCCP", b"acTL", b"gAMA", b"cHRM")
_PNG_XMP = b"iTXt that holds XMP"
# What is carried, or is lost by a note of its own, or (pHYs) would be untrue.
_PNG_KNOWN = {
    b"IDAT", b"IEND", b"PLTE", b"acTL", b"cHRM", b"cICP", b"eXIf", b"fcTL", b"fdAT", b"gAMA", b"iCCP", b"iTXt",
    b"pHYs", b"sRGB", b"tEXt", b"tRNS", b"zTXt", _PNG_XMP,
}  # fmt: skip
# sRGB's white, red, green and blue (x, y) in 1/100,000, and how far off they may be stated.
_SRGB_PRIMARIES, _ROUNDED = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000), 100


def _fits(length: int, colour: int) -> bool:
    """Whether a tRNS of so many bytes is one for the colour type."""
    return length in {0: (2,), 2: (6,), 3: range(1, 257)}.get(colour, ())


def _apng_frames(chunks: dict[bytes, bytes]) -> int:
    actl = chunks.get(b"acTL", b"")
    return max(1, struct.unpack(">I", actl[:4])[0]) if len(actl) >= 4 else 1


def _png_icc(chunk: bytes) -> bytes:
    name_end = chunk.find(b"\0")
    if name_end < 0:
        return b""
    try:
        return zlib.decompressobj().decompress(chunk[name_end + 2 :], _METADATA_LIMIT)
    except zlib.error:
        return b""


def _png_notes(chunks: dict[bytes, bytes], icc: bytes, block: bytes) -> tuple[str, ...]:
    gamma = struct.unpack(">I", chunks[b"gAMA"])[0] if len(chunks.get(b"gAMA", b"")) == 4 else 45455
    primaries = chunks.get(b"cHRM", b"")
    stated = struct.unpack(">8I", primaries) if len(primaries) == 32 else _SRGB_PRIMARIES
    plain = b"iCCP" not in chunks and b"sRGB" not in chunks
    foreign = any(abs(a - b) > _ROUNDED for a, b in zip(stated, _SRGB_PRIMARIES, strict=True))
    lost = {"exif": b"eXIf" in chunks and not block, "icc": b"iCCP" in chunks and not icc,
            "cicp": b"cICP" in chunks, "gamma": plain and abs(gamma - 45455) > 100,
            "chromaticities": plain and foreign, "xmp": _PNG_XMP in chunks,
            "text": bool({b"tEXt", b"zTXt", b"iTXt"} & chunks.keys()),
            "chunks": bool(chunks.keys() - _PNG_KNOWN)}  # fmt: skip
    return tuple(f"{name}-dropped" for name, is_lost in lost.items() if is_lost)


# JPEG: Pillow's plug-in walks the markers up to the first scan and joins the profile's parts


def _jpeg(file: BinaryIO) -> Facts:
    from PIL.JpegImagePlugin import JpegImageFile

    image = JpegImageFile(
        file
    )  # the class, not Image.open: that would warn of bombs by a global of the process
    raw = image.info.get("exif", b"")
    block = exif.bare(raw)
    turned = exif.orientation(block)
    segments = [(name, body) for name, body in image.applist if name != "COM"]
    foreign = not all(body.startswith(_JPEG_KNOWN.get(name, ())) for name, body in segments)
    xmp = any(name == "APP1" and body.startswith(_JPEG_KNOWN["APP1"][1:]) for name, body in segments)
    lost = {"exif": bool(raw) and not block, "xmp": xmp, "iptc": "photoshop" in image.info,
            "text": "comment" in image.info, "extra-pictures": "mpoffset" in image.info,
            "app-segments": foreign}  # fmt: skip
    header = Header(
        "jpeg",
        *displayed(image.height, image.width, turned),
        channels=1 if image.mode == "L" else 3,
        depth=8,
        alpha=False,
        frames=1,
        orientation=turned,
        form={"L": "grey", "RGB": "rgb", "CMYK": "cmyk"}[image.mode],
    )
    notes = tuple(f"{name}-dropped" for name, is_lost in lost.items() if is_lost)
    return Facts(header, image.info.get("icc_profile") or b"", block, notes)


# How the segments begin that are carried, or are lost by a note of their own.
_JPEG_KNOWN = {
    "APP0": (b"JFIF", b"JFXX\0"),
    "APP1": (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"),
    "APP2": (b"ICC_PROFILE\0", b"MPF\0"),
    "APP13": (b"Photoshop 3.0\0",),
    "APP14": (b"Adobe",),
}


# WebP: https://developers.google.com/speed/webp/docs/riff_container. Pillow's plug-in allocates the whole
# canvas when it opens a file, so the header is read here.


def _webp(file: BinaryIO) -> Facts:
    end = struct.unpack_from("<I", file.read(12), 4)[0] + 8
    width = height = 0
    alpha, frames = False, 0
    seen: dict[bytes, bytes] = {}
    while len(head := file.read(8)) == 8 and file.tell() <= end:
        kind, length = struct.unpack("<4sI", head)
        body = file.tell()
        start = file.read(
            length if kind in (b"ICCP", b"EXIF") and length <= _METADATA_LIMIT else min(length, 10)
        )
        if kind == b"VP8X":
            alpha = bool(start[0] & 0x10)
            width = 1 + int.from_bytes(start[4:7], "little")
            height = 1 + int.from_bytes(start[7:10], "little")
        elif kind == b"VP8L" and not width:
            (bits,) = struct.unpack_from("<I", start, 1)
            width, height, alpha = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1))
        elif kind == b"VP8 " and not width:
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", start, 6))
        frames += kind == b"ANMF"
        seen.setdefault(kind, start)
        file.seek(body + length + length % 2)
    if not width:
        raise EOFError("no VP8 chunk")
    block = exif.bare(seen.get(b"EXIF", b""))
    turned = exif.orientation(block)
    lost = {"exif": b"EXIF" in seen and not block, "xmp": b"XMP " in seen,
            "chunks": bool(seen.keys() - _WEBP_KNOWN)}  # fmt: skip
    notes = tuple(f"{name}-dropped" for name, is_lost in lost.items() if is_lost)
    header = Header("webp", *displayed(height, width, turned), 3, 8, alpha, max(1, frames), turned, "rgb")
    return Facts(header, seen.get(b"ICCP", b""), block, notes, end)


_WEBP_KNOWN = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "}


# BMP

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)


def _bmp(file: BinaryIO) -> Facts:
    from PIL.BmpImagePlugin import BmpImageFile

    start = file.read(74)
    has_profile = start[14] == 124 and start[70:] in (b"DEBM", b"KNIL")  # itself, or the path of one
    file.seek(0)
    image = BmpImageFile(file)
    form = {"1": "1bit", "L": "grey", "P": "palette", "RGB": "rgb", "RGBA": "rgb"}[image.mode]
    channels = 1 if image.mode in ("1", "L") else 3
    header = Header("bmp", image.height, image.width, channels, 8, image.mode == "RGBA", 1, 1, form)
    return Facts(header, notes=("icc-dropped",) if has_profile else ())


_PARSERS = {"png": _png, "jpeg": _jpeg, "webp": _webp, "tiff": parse_tiff, "bmp": _bmp}
