"""The header of a TIFF: which of its many forms a file has, and which of them imgtx refuses.

Source: TIFF 6.0, https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
"""

from typing import BinaryIO

from imgtx.codecs import exif
from imgtx.codecs.picture import Facts, Header, displayed
from imgtx.errors import ImageError

_PHOTOMETRIC = {
    0: "grey",
    1: "grey",
    2: "rgb",
    3: "palette",
    5: "cmyk",
    6: "rgb",  # YCbCr, which libtiff converts
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
# What libvips's wheel decodes. It lacks the other codecs and would deliver zeros for them.
_COMPRESSIONS = {
    1: "none",
    2: "CCITT",
    3: "CCITT group 3",
    4: "CCITT group 4",
    5: "LZW",
    7: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    50001: "WebP",
}
_OTHER_COMPRESSIONS = {
    6: "old-style JPEG",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50002: "JPEG XL",
}
# Tags of TIFF's first directory that describe the picture and not its storage.
_TIFF_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 316, 33432, 34665, 34853)
# Tags that lay out the pixels, and densities, which would be untrue of an image of another size.
_TIFF_STORAGE = {
    *range(254, 269), 273, 274, *range(277, 285), 288, 289, 290, 291, 292, 293, 296, 297, 317, *range(320, 329),
    330, 332, 334, *range(336, 344), 347, *range(512, 522), *range(529, 533), 559,
}  # fmt: skip
_TIFF_NOTED = {
    700: "xmp", 33723: "iptc", 34377: "photoshop", 301: "chromaticities", 318: "chromaticities",
    319: "chromaticities", 34675: "icc",
}  # fmt: skip


def parse_tiff(file: BinaryIO) -> Facts:
    """The first page's facts by its tags.

    Raises `ImageError("unsupported")` for forms that are not carried.
    """
    ifd, bigger = _directory(file)
    file.seek(ifd.next)
    ifd.load(file)
    bits = ifd.get(258, (1,))
    spots = ifd.get(338, ())
    photometric = ifd.get(262, -1)
    form = _PHOTOMETRIC.get(photometric, f"photometric {photometric}")
    if form == "grey" and bits[0] < 8:
        form = "1bit" if bits[0] == 1 else "lowbit"
    block = _tiff_exif(ifd, file, bigger)
    turned = ifd.get(274, 1) if ifd.get(274, 1) in range(1, 9) else 1
    samples = ifd.get(277, 1)
    colours = {"rgb": 3, "cmyk": 4}.get(form, 1)
    header = Header(
        "tiff",
        *displayed(ifd[257], ifd[256], turned),
        channels=3 if form in ("rgb", "palette", "cmyk") else 1,
        depth=16 if bits[0] == 16 else 8,
        alpha=samples > colours and form != "cmyk" and bool(spots) and spots[0] in (1, 2),
        frames=_tiff_pages(ifd, file),
        orientation=turned,
        form=form,
    )
    _refuse_tiff(header, ifd, samples - colours)
    _refuse_storage(ifd)
    notes = _tiff_notes(ifd)
    if samples > colours + header.alpha:
        notes += ("extra-channel-dropped",)
    if block is None:
        notes += ("exif-dropped",)
    return Facts(
        header,
        ifd.get(34675, b"") or b"",
        block or b"",
        notes,
        _tiff_end(ifd),
        header.alpha and spots[0] == 1,
        tuple(zip(*_parts(ifd), strict=False)) if ifd.get(259) in (8, 32946) else (),
    )


def _tiff_notes(ifd) -> tuple[str, ...]:
    lost = [_TIFF_NOTED.get(tag, "tags") for tag in ifd if tag not in (*_TIFF_DESCRIPTIVE, *_TIFF_STORAGE)]
    unless_profiled = () if ifd.get(34675) else ("chromaticities",)
    return tuple(
        f"{name}-dropped" for name in ("xmp", "iptc", "photoshop", *unless_profiled, "tags") if name in lost
    )


def _refuse_tiff(header: Header, ifd, extra: int) -> None:
    bits, sign = ifd.get(258, (1,)), ifd.get(339, (1,))[0]
    named = (
        f"{bits[0]}-bit {'float' if sign == 3 else 'signed' if sign == 2 else ''} {header.form} TIFF".replace(
            "  ", " "
        )
    )
    legal = header.form in ("1bit", "lowbit", "grey", "palette", "rgb", "cmyk") and sign in (1, 4)
    depths = {
        "palette": (1, 2, 4, 8),
        "rgb": (8, 16),
        "cmyk": (8,),
        "grey": (8, 16),
        "1bit": (1,),
        "lowbit": (2, 4),
    }
    if not legal or len(set(bits)) > 1 or bits[0] not in depths[header.form]:
        raise ImageError(
            "unsupported", f"a {named}; imgtx carries 8 and 16 bit grey and RGB, 8 bit CMYK: convert it"
        )
    if extra > 1 or (header.form == "cmyk" and extra):
        raise ImageError(
            "unsupported", f"a {named} with {extra} extra channels; imgtx carries one alpha: flatten it"
        )


def _refuse_storage(ifd) -> None:
    compression, photometric = ifd.get(259, 1), ifd.get(262)
    if compression not in _COMPRESSIONS:
        name = _OTHER_COMPRESSIONS.get(compression, "an unknown codec")
        legal = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise ImageError(
            "unsupported",
            f"a TIFF compressed by {name} (tag 259 is {compression}); imgtx reads {legal}: convert it",
        )
    if photometric == 6 and compression != 7:
        raise ImageError(
            "unsupported",
            f"a YCbCr TIFF with compression {_COMPRESSIONS[compression]}; imgtx reads YCbCr only in JPEG: "
            "convert it to RGB",
        )
    if ifd.get(284, 1) == 2 and 322 in ifd:
        raise ImageError(
            "unsupported",
            "a TIFF of tiles with a plane for each channel; imgtx reads separate planes in strips only: "
            "convert it",
        )
    offsets, lengths = _parts(ifd)
    if missing := max(offsets.count(0), lengths.count(0)):
        raise ImageError(
            "corrupt",
            f"a TIFF in which {missing} of {len(offsets)} strips or tiles are empty (sparse, or never "
            "finished); imgtx takes whole pictures: write it again",
        )


def _directory(file: BinaryIO):
    """A directory still to be loaded, its `next` the offset of the first; whether offsets have 64 bits."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file.seek(0)
    start = file.read(16)
    bigger = start[2:4] in (b"\0+", b"+\0")
    if bigger:  # Pillow knows this form by the third byte alone, but not when the file is big-endian
        return ImageFileDirectory_v2(b"II+\0" + start[4:], prefix=start[:2]), True
    return ImageFileDirectory_v2(start[:8]), False


def _tiff_exif(ifd, file: BinaryIO, bigger: bool) -> bytes | None:
    """A fresh EXIF block of the descriptive tags: TIFF keeps them among those that lay out its pixels.

    None when there are some that cannot be taken over.
    """
    from PIL import Image

    if not any(tag in ifd for tag in _TIFF_DESCRIPTIVE):
        return b""
    block = Image.Exif()
    file.seek(0)
    try:
        if not bigger:
            block.load_from_fp(file)
            for tag in [tag for tag in block if tag not in _TIFF_DESCRIPTIVE]:
                del block[tag]
            return exif.bare(block.tobytes())
    except Exception:  # metadata that Pillow cannot read or write must not cost the picture
        return None
    return None


def _tiff_pages(ifd, file: BinaryIO) -> int:
    """Directories that are pictures of their own: neither a reduced copy (1) nor a mask (4)."""
    pages, at, seen = 1, ifd.next, set()
    while at and at not in seen and pages < 2:
        seen.add(at)
        page, _ = _directory(file)
        file.seek(at)
        page.load(file)
        pages += not page.get(254, 0) & 5
        at = page.next
    return pages


def _tiff_end(ifd) -> int:
    return max((a + b for a, b in zip(*_parts(ifd), strict=False)), default=0)


def _parts(ifd) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the strips or tiles begin, and the bytes of each."""
    return ifd.get(273) or ifd.get(324) or (), ifd.get(279) or ifd.get(325) or ()
