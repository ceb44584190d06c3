"""TIFF: header, which of the many forms imgtx refuses, and checksums; `tiff_writer.py` writes it.

TIFF 6.0, https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf

Why the tags are judged by hand (Pillow only parses them): for some of TIFF's forms libvips delivers zeros or wrong
colours without an error. Others are rewritten for it (`tiff_rewritten.py`).
"""

from typing import BinaryIO

from isal import isal_zlib

import imgtx.codecs.metadata.exif as exif
import imgtx.codecs.metadata.iptc as iptc
import imgtx.codecs.vips as vips
from imgtx.codecs.format import Format, Writer, holds_any
from imgtx.codecs.formats.tiff_pages import Directory, parts_of, read_pages, tag_bytes
from imgtx.codecs.formats.tiff_rewritten import INFLATED, needs_rewriting, rewrite
from imgtx.codecs.lab import LAB_FORMS
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.metadata.density import Density, density_of
from imgtx.codecs.picture import Facts, Header, displayed, dropped
from imgtx.codecs.refusals import decoder_errors
from imgtx.codecs.rows import in_memory, on_disk
from imgtx.codecs.tiff_writer import write_rows
from imgtx.errors import ImageError

# The second pair of each has 64-bit offsets.
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_PHOTOMETRIC = {
    0: "grey",
    1: "grey",
    2: "rgb",
    3: "palette",
    5: "cmyk",
    # YCbCr, which libtiff converts.
    6: "rgb",
    **LAB_FORMS,
    10: "ITU L*a*b*",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
# What the wheel of libvips decodes, and what is inflated for it. It would deliver zeros for others.
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
    **INFLATED,
}
_OTHER_COMPRESSIONS = {
    6: "old-style JPEG",
    34712: "JPEG 2000",
    34887: "LERC",
    50002: "JPEG XL",
}
# Tags of the first directory that describe the picture and not its storage.
_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 316, 33432, 34665, 34853)
# Tags that lay out the pixels, and the resolution, which is written anew.
_STORAGE = {
    *range(254, 269), 273, 274, *range(277, 285), 288, 289, 290, 291, 292, 293, 296, 297, 317, *range(320, 329),
    330, 332, 334, *range(336, 344), 347, *range(512, 522), *range(529, 533), 559,
}  # fmt: skip
_NOTED = {
    700: "xmp", 33723: "iptc", 34377: "photoshop", 301: "chromaticities", 318: "chromaticities",
    319: "chromaticities", 34675: "icc",
}  # fmt: skip
# Bytes of a deflated strip that are inflated together.
_INFLATED = 2**18


def recognise(start: bytes) -> bool:
    return start.startswith(_SIGNATURES)


def read_facts(file: BinaryIO) -> Facts:
    """Read the full-size picture's header and metadata from its tags.

    Raises `ImageError` (unsupported, corrupt) for forms that cannot be carried, and as `read_pages`.
    """
    pages = read_pages(file)
    picture, first = pages.picture, pages.first
    ifd = picture.tags
    if 256 not in ifd or 257 not in ifd:
        raise ValueError("its directory states no size")
    bits = ifd.get(258, (1,))
    # What each channel beyond the colours is: 1 premultiplied alpha, 2 straight alpha.
    extra = ifd.get(338, ())
    photometric = ifd.get(262, -1)
    form = _PHOTOMETRIC.get(photometric, f"photometric {photometric}")
    if form == "grey" and bits[0] < 8:
        form = "1bit" if bits[0] == 1 else "lowbit"
    # A picture below another directory has what describes it there.
    described = ifd if picture.sub < 0 or any(tag in ifd for tag in (*_DESCRIPTIVE, 274)) else first.tags
    block = _exif_of_tags(first if described is first.tags else picture, file)
    orientation = described.get(274, 1) if described.get(274, 1) in range(1, 9) else 1
    samples = ifd.get(277, 1)
    in_lab = form in LAB_FORMS.values()
    colours = 3 if in_lab else {"rgb": 3, "cmyk": 4}.get(form, 1)
    header = Header(
        "tiff",
        *displayed(ifd[257], ifd[256], orientation),
        channels=3 if in_lab or form in ("rgb", "palette", "cmyk") else 1,
        depth=16 if bits[0] == 16 else 8,
        alpha=samples > colours and form != "cmyk" and bool(extra) and extra[0] in (1, 2),
        frames=pages.pages,
        orientation=orientation,
        form=form,
        page=picture.page,
        sub=picture.sub,
        # JPEG; WebP, which may be lossless too.
        quality=0 if ifd.get(259) in (7, 50001) else 100,
    )
    _refuse_form(header, ifd, samples - colours)
    _refuse_storage(ifd)
    holders = (first, picture) if described is first.tags else (picture,)
    xmp, stated, resources = (tag_bytes(file, holders, tag) for tag in (700, 33723, 34377))
    among, others = iptc.from_resources(resources or b"")
    datasets = among if stated is None else iptc.unswapped(stated)
    notes: tuple[str, ...] = ("full-size-taken",) if picture.offset != first.offset else ()
    notes += dropped(
        xmp=xmp == b"",
        iptc=stated == b"" or not iptc.is_whole(datasets),
        photoshop=others or resources == b"",
    )
    notes += _lost_tags({*ifd} | {*described})
    notes += dropped(extra_channel=samples > colours + header.alpha, exif=block is None)
    return Facts(
        header,
        ifd.get(34675) or described.get(34675) or b"",
        block or b"",
        notes,
        end=max((offset + length for offset, length in parts_of(ifd)), default=0),
        premultiplied=header.alpha and extra[0] == 1,
        deflated=tuple(parts_of(ifd)) if ifd.get(259) in (8, 32946) else (),
        metadata=Metadata(_density(described), xmp or b"", iptc.datasets(datasets)),
        foreign=needs_rewriting(ifd),
    )


def _density(tags) -> Density | None:
    unit = tags.get(296, 2)
    return density_of(tags.get(282), tags.get(283), {2: "inch", 3: "cm"}.get(unit, ""))


def _lost_tags(tags: set[int]) -> tuple[str, ...]:
    lost = {_NOTED.get(tag, "tags") for tag in tags if tag not in (*_DESCRIPTIVE, *_STORAGE)}
    if 34675 in tags:
        # A profile overrides them.
        lost.discard("chromaticities")
    return dropped(**{name: name in lost for name in ("chromaticities", "tags")})


def _refuse_form(header: Header, ifd, extra: int) -> None:
    bits, sign = ifd.get(258, (1,)), ifd.get(339, (1,))[0]
    kind = {2: "signed ", 3: "float "}.get(sign, "")
    named = f"{bits[0]}-bit {kind}{header.form} TIFF"
    in_lab = header.form in LAB_FORMS.values()
    depths = {
        **dict.fromkeys(LAB_FORMS.values(), (8, 16)),
        "palette": (1, 2, 4, 8),
        "rgb": (8, 16),
        "cmyk": (8,),
        "grey": (8, 16),
        "1bit": (1,),
        "lowbit": (2, 4),
    }
    # a* and b* are signed, and some programs say so.
    known = header.form in depths and (sign in (1, 4) or (in_lab and sign == 2))
    if not known or len(set(bits)) > 1 or bits[0] not in depths[header.form]:
        raise ImageError(
            "unsupported", f"a {named}; imgtx carries 8 and 16 bit grey, RGB and Lab, 8 bit CMYK: convert it"
        )
    if extra < 0 or (in_lab and extra and header.alpha and ifd.get(338, ())[0] == 1):
        raise ImageError(
            "unsupported",
            f"a {named} of {ifd.get(277, 1)} channels, or with colours multiplied by alpha; imgtx reads Lab in "
            "three channels, with straight alpha or without: convert it to RGB",
        )
    if extra > 1 or (header.form == "cmyk" and extra):
        raise ImageError(
            "unsupported", f"a {named} with {extra} extra channels; imgtx carries one alpha: flatten it"
        )


def _refuse_storage(ifd) -> None:
    compression, photometric = ifd.get(259, 1), ifd.get(262)
    if compression not in _COMPRESSIONS:
        name = _OTHER_COMPRESSIONS.get(compression, "an unknown codec")
        known = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise ImageError(
            "unsupported",
            f"a TIFF compressed by {name} (tag 259 is {compression}); imgtx reads {known}: convert it",
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
    parts = parts_of(ifd)
    if missing := sum(not (offset and length) for offset, length in parts):
        raise ImageError(
            "corrupt",
            f"a TIFF in which {missing} of {len(parts)} strips or tiles are empty (sparse, or never "
            "finished); imgtx takes whole pictures: write it again",
        )


def _exif_of_tags(directory: Directory, file: BinaryIO) -> bytes | None:
    """Return an EXIF block made of the descriptive tags; None if there are some that cannot be taken over.

    TIFF keeps them among the tags that lay out its pixels.
    """
    from PIL import Image

    if not any(tag in directory.tags for tag in _DESCRIPTIVE):
        return b""
    block = Image.Exif()
    file.seek(0)
    block.endian = ">" if file.read(2) == b"MM" else "<"
    try:
        if not directory.bigger:
            block.load_from_fp(file, directory.offset)
            for tag in [tag for tag in block if tag not in _DESCRIPTIVE]:
                del block[tag]
            return exif.bare(block.tobytes())
    except Exception:
        # Metadata that Pillow cannot read or write must not cost the picture.
        return None
    return None


def check(file: BinaryIO, facts: Facts) -> None:
    """Check the checksum of each deflated strip and tile: libtiff stops before it, with wrong pixels.

    What the streams inflate to is bounded: several times the picture, no matter what they claim. Raises `ImageError`.
    """
    room = 16 * facts.header.height * facts.header.width + 2**24
    with decoder_errors("tiff"):
        for offset, length in facts.deflated:
            file.seek(offset)
            stream, left = isal_zlib.decompressobj(), length
            while left > 0 and room > 0 and not stream.eof and (part := file.read(min(left, 2**20))):
                left -= len(part)
                inflated = _INFLATED
                while not stream.eof and room > 0 and (part or inflated == _INFLATED):
                    inflated = len(stream.decompress(part, _INFLATED))
                    part = stream.unconsumed_tail
                    room -= inflated


FORMAT = Format(
    name="tiff",
    title="TIFF",
    suffixes=(".tif", ".tiff"),
    reads="8 and 16 bits, grey, RGB and Lab, palettes, 1, 2 and 4 bit grey, 8 bit CMYK, alpha; strips "
    "and tiles; uncompressed, CCITT, LZW, deflate, PackBits, JPEG, WebP, Zstandard and LZMA; "
    "BigTIFF",
    recognise=recognise,
    read_facts=read_facts,
    check=check,
    samples=vips.samples,
    strips=vips.strips,
    rewrite=rewrite,
    writer=Writer(
        encode=in_memory(write_rows),
        write=on_disk(write_rows),
        depth16=True,
        alpha=True,
        grey=True,
        icc=True,
        exif_limit=2**31 - 1,
        iptc=True,
        holds_xmp=holds_any,
        holds_density=holds_any,
    ),
)
