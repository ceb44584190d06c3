"""The header of a TIFF: which of its many forms a file has, and which of them imgtx refuses.

Source: TIFF 6.0, https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
"""

from typing import BinaryIO

from imgtx import exif
from imgtx.errors import ImageError
from imgtx.facts import Facts, Header, displayed

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
# Tags of TIFF's first directory that describe the picture and not its storage.
_TIFF_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 316, 33432, 34665, 34853)


def parse_tiff(file: BinaryIO) -> Facts:
    """The first page's facts by its tags.

    Raises `ImageError("unsupported")` for forms that are not carried.
    """
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    start = file.read(16)
    bigger = 1 if start[2] == 43 or start[3] == 43 else 0
    ifd = ImageFileDirectory_v2(start if bigger else start[:8])
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
        frames=_tiff_pages(ifd, file, bigger),
        orientation=turned,
        form=form,
    )
    _refuse_tiff(header, ifd, samples - colours)
    notes = tuple(
        f"{name}-dropped" for tag, name in ((700, "xmp"), (33723, "iptc"), (34377, "photoshop")) if tag in ifd
    )
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


def _tiff_exif(ifd, file: BinaryIO, bigger: int) -> bytes | None:
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


def _tiff_pages(ifd, file: BinaryIO, bigger: int) -> int:
    """Directories that are pictures of their own: neither a reduced copy (1) nor a mask (4)."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    pages, at, seen = 1, ifd.next, set()
    file.seek(0)
    start = file.read(16 if bigger else 8)
    while at and at not in seen and pages < 2:
        seen.add(at)
        page = ImageFileDirectory_v2(start)
        file.seek(at)
        page.load(file)
        pages += not page.get(254, 0) & 5
        at = page.next
    return pages


def _tiff_end(ifd) -> int:
    offsets = ifd.get(273) or ifd.get(324) or ()
    lengths = ifd.get(279) or ifd.get(325) or ()
    return max((a + b for a, b in zip(offsets, lengths, strict=False)), default=0)
