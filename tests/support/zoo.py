"""Bad and odd image files, each with the expected result. They are generated, so no file is stored."""

import functools
import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips
from PIL import Image, ImageCms

ORIENTATION, ARTIST = 0x0112, 0x013B


@dataclass(frozen=True)
class Expectation:
    """The expected result of a file: written (`reason` ""), or the ledger's reason and the stage that found it.

    `size` is (height, width) as displayed, `notes` the conversions that decoding must name.
    """

    reason: str = ""
    size: tuple[int, int] | None = None
    channels: int = 3
    depth: int = 8
    alpha: bool = False
    notes: tuple[str, ...] = ()
    # The stage of a bad file: all of these can be fetched, and none can be decoded.
    stage: str = "decode"

    @property
    def written(self) -> bool:
        return not self.reason


def build_zoo(directory: Path) -> dict[str, Expectation]:
    """Write the zoo under `directory`; return key (relative path) -> expectation."""
    from tests.support.more_formats import more_files

    members = {
        **more_files(),
        **_forms(),
        **_tiffs(),
        **paged_tiffs(),
        **_metadata(),
        **_shapes_and_names(),
        **_broken(),
        **_refused(),
    }
    for key, (data, _) in members.items():
        path = directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return {key: expectation for key, (_, expectation) in members.items()}


def photo(height: int = 48, width: int = 64, channels: int = 3, depth: int = 8) -> np.ndarray:
    """Return a smooth image with an edge and four different corners: (height, width, channels) or (height, width)."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = [x, y, (x + 2 * y) / 3, 1 - 0.7 * x * y][:channels]
    values = np.stack(planes, axis=-1) * 0.8 + 0.1 * (x + y > 0.7)[..., None]
    top = 2**depth - 1
    whole = np.rint(values * top).clip(0, top).astype(np.uint16 if depth == 16 else np.uint8)
    return whole[..., 0] if channels == 1 else whole


def saved(image: Image.Image | np.ndarray, format: str = "PNG", **options) -> bytes:
    """Return the bytes of a file written by Pillow."""
    out = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(out, format, **options)
    return out.getvalue()


def exif_block(orientation: int = 1, width: int = 64, height: int = 48) -> bytes:
    """Return EXIF with orientation, artist, dimensions, a maker note and a thumbnail, as a camera writes it."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[ARTIST] = "A. Nobody"
    exif.get_ifd(0x8769).update({0xA002: width, 0xA003: height, 0x927C: b"maker note \x01\x02"})
    block = bytearray(exif.tobytes()[6:])
    order = ">" if block[:2] == b"MM" else "<"
    (first,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, first)
    struct.pack_into(order + "I", block, first + 2 + 12 * count, len(block))
    thumbnail = saved(photo(6, 8), "JPEG")
    start = len(block) + 2 + 24 + 4
    block += struct.pack(order + "H", 2)
    block += struct.pack(order + "HHII", 0x0201, 4, 1, start) + struct.pack(
        order + "HHII", 0x0202, 4, 1, len(thumbnail)
    )
    return b"Exif\0\0" + bytes(block) + struct.pack(order + "I", 0) + thumbnail


@functools.cache
def rgb_profile() -> bytes:
    """Return a complete RGB profile, with the second of its creation (by littlecms)."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _vips_png(samples: np.ndarray, interpretation: str) -> bytes:
    return pyvips.Image.new_from_array(samples).copy(interpretation=interpretation).pngsave_buffer()


def _forms() -> dict[str, tuple[bytes, Expectation]]:
    rgb, rgba, grey = photo(), photo(channels=4), photo(channels=1)
    grey16, rgb16, rgba16 = (photo(channels=1, depth=16), photo(depth=16), photo(channels=4, depth=16))
    size = (48, 64)
    palette = Image.fromarray(rgb).quantize(32)
    clear = palette.copy()
    clear.info["transparency"] = bytes(range(0, 256, 8))
    la = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(rgba[..., 3])])
    cmyk = Image.fromarray(rgb).convert("CMYK")
    colour, one = Expectation(size=size), Expectation(size=size, channels=1)
    colour16, one16 = (Expectation(size=size, depth=16), Expectation(size=size, channels=1, depth=16))
    return {
        "forms/rgb.png": (saved(rgb), colour),
        "forms/rgba.png": (saved(rgba), Expectation(size=size, alpha=True)),
        "forms/grey.png": (saved(grey), one),
        "forms/grey-alpha.png": (saved(la), Expectation(size=size, channels=1, alpha=True)),
        "forms/grey-key.png": (saved(grey, transparency=12), Expectation(size=size, channels=1, alpha=True)),
        "forms/palette.png": (saved(palette), Expectation(size=size, notes=("palette->rgb",))),
        "forms/palette-clear.png": (
            saved(clear),
            Expectation(size=size, alpha=True, notes=("palette->rgb",)),
        ),
        "forms/1bit.png": (
            saved(Image.fromarray(grey).convert("1")),
            Expectation(size=size, channels=1, notes=("1bit->grey",)),
        ),
        "forms/2bit.png": (_low_bit_png(), Expectation(size=(3, 4), channels=1, notes=("lowbit->grey",))),
        "forms/grey16.png": (saved(grey16), one16),
        "forms/rgb16.png": (_vips_png(rgb16, "rgb16"), colour16),
        "forms/rgba16.png": (_vips_png(rgba16, "rgb16"), Expectation(size=size, depth=16, alpha=True)),
        "forms/baseline.jpg": (saved(rgb, "JPEG", quality=90), colour),
        "forms/progressive.jpg": (saved(rgb, "JPEG", progressive=True), colour),
        "forms/grey.jpg": (saved(grey, "JPEG"), one),
        "forms/cmyk-adobe.jpg": (saved(cmyk, "JPEG"), Expectation(size=size, notes=("cmyk->rgb",))),
        "forms/cmyk-plain.jpg": (
            _without_adobe(saved(cmyk, "JPEG")),
            Expectation(size=size, notes=("cmyk->rgb",)),
        ),
        "forms/lossy.webp": (saved(rgb, "WEBP", quality=80), colour),
        "forms/lossless.webp": (
            saved(rgba, "WEBP", lossless=True, exact=True),
            Expectation(size=size, alpha=True),
        ),
        "forms/rgb.bmp": (saved(rgb, "BMP"), colour),
        "forms/palette.bmp": (saved(palette, "BMP"), Expectation(size=size, notes=("palette->rgb",))),
    }


def _tiffs() -> dict[str, tuple[bytes, Expectation]]:
    rgb, rgba, grey = photo(), photo(channels=4), photo(channels=1)
    grey16, rgb16 = photo(channels=1, depth=16), photo(depth=16)
    cmyk = Image.fromarray(rgb).convert("CMYK")
    size = (48, 64)
    colour, one = Expectation(size=size), Expectation(size=size, channels=1)
    colour16, one16 = (Expectation(size=size, depth=16), Expectation(size=size, channels=1, depth=16))
    tiff16 = (
        pyvips.Image.new_from_array(rgb16).copy(interpretation="rgb16").tiffsave_buffer(compression="lzw")
    )
    return {
        "forms/plain.tif": (saved(rgb, "TIFF"), colour),
        "forms/lzw.tif": (saved(rgb, "TIFF", compression="tiff_lzw"), colour),
        "forms/zstd.tif": (saved(rgb, "TIFF", compression="zstd"), colour),
        "forms/lzma-grey16.tif": (saved(grey16, "TIFF", compression="lzma"), one16),
        "forms/lab.tif": (lab_tiff(rgb), Expectation(size=size, notes=("lab->srgb",))),
        "forms/icclab16.tif": (
            lab_tiff(rgb, photometric=9, depth=16, order=">"),
            Expectation(size=size, depth=16, notes=("lab->srgb",)),
        ),
        "forms/deflate-grey.tif": (saved(grey, "TIFF", compression="tiff_adobe_deflate"), one),
        "forms/rgba.tif": (saved(rgba, "TIFF"), Expectation(size=size, alpha=True)),
        "forms/cmyk.tif": (saved(cmyk, "TIFF"), Expectation(size=size, notes=("cmyk->rgb",))),
        "forms/grey16.tif": (saved(grey16, "TIFF"), one16),
        "forms/rgb16.tif": (tiff16, colour16),
        "forms/4bit.tif": (_low_bit_tiff(), Expectation(size=(3, 4), channels=1, notes=("lowbit->grey",))),
        "forms/premultiplied.tif": (
            _premultiplied_tiff(),
            Expectation(size=size, alpha=True, notes=("alpha-unpremultiplied",)),
        ),
        **{
            f"forms/{name}.tif": (rgb_tiff(order=order, big=big), colour)
            for name, order, big in (
                ("big-endian", ">", False),
                ("64bit", "<", True),
                ("64bit-big", ">", True),
            )
        },
        "forms/1bit.tif": (
            saved(Image.fromarray(grey).convert("1"), "TIFF", compression="group4"),
            Expectation(size=size, channels=1, notes=("1bit->grey",)),
        ),
    }


def _low_bit_png() -> bytes:
    """Return a 4 x 3 grey PNG of 2 bits: 0, 85, 170, 255 in each row."""
    header = struct.pack(">IIBBBBB", 4, 3, 2, 0, 0, 0, 0)
    body = zlib.compress(b"\0\x1b" * 3)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    )


def _low_bit_tiff() -> bytes:
    """Return a 4 x 3 grey TIFF of 4 bits: 0, 85, 170, 255 in each row."""
    return tiff({256: [4], 257: [3], 258: [4], 262: [1], 277: [1], 278: [3]}, [b"\x05\xaf" * 3])


def tiff(
    tags: dict[int, list[int] | bytes], parts: list[bytes], *, order: str = "<", big: bool = False
) -> bytes:
    """Build a TIFF: `tags` beside those that place `parts`, which are strips, or tiles if there is a tag 322."""
    start = b"II" if order == "<" else b"MM"
    head = 16 if big else 8
    places = [head + sum(map(len, parts[:number])) for number in range(len(parts))]
    lengths = [len(part) for part in parts]
    tags = tags | dict(zip((324, 325) if 322 in tags else (273, 279), (places, lengths), strict=True))
    body = b"".join(parts)
    entries = b""
    count, room = ("Q", 8) if big else ("I", 4)
    for tag, values in sorted(tags.items()):
        packed = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}I", *values)
        kind, number = (7, len(packed)) if isinstance(values, bytes) else (4, len(values))
        if len(packed) > room:
            body += packed
            packed = struct.pack(order + count, head + len(body) - len(packed))
        entries += struct.pack(f"{order}HH{count}", tag, kind, number) + packed.ljust(room, b"\0")
    at = head + len(body)
    number, end = struct.pack(order + ("Q" if big else "H"), len(tags)), bytes(room)
    start += struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    return start + body + number + entries + end


def lab_of(rgb: np.ndarray) -> np.ndarray:
    """Return L*, a* and b* under D50, float64, of sRGB (height, width, 3) uint8, by the profile's own numbers."""
    levels = rgb / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    share = light @ to_xyz.T / to_xyz.sum(axis=1)
    x, y, z = np.moveaxis(np.where(share > (6 / 29) ** 3, np.cbrt(share), share * 841 / 108 + 4 / 29), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lab_tiff(
    rgb: np.ndarray, *, photometric: int = 8, depth: int = 8, order: str = "<", alpha: bool = False
) -> bytes:
    """Return an uncompressed TIFF of two strips in CIE's (8) or ICC's (9) L*a*b*, opaque if `alpha` is asked for."""
    height, width, _ = rgb.shape
    highest, unit = (255, 1) if depth == 8 else (65280 if photometric == 9 else 65535, 256)
    stored = np.round(lab_of(rgb) * [highest / 100, unit, unit]).astype(np.int64)
    stored[:, :, 1:] += (2 ** (depth - 1)) * (photometric == 9)
    if alpha:
        stored = np.dstack([stored, np.full((height, width), 2**depth - 1)])
    data = (stored % 2**depth).astype(f"{order}u{depth // 8}")
    bands = stored.shape[2]
    tags = {256: [width], 257: [height], 258: [depth] * bands, 259: [1], 262: [photometric], 277: [bands]}
    more = {278: [height // 2]} | ({338: [2]} if alpha else {})
    return tiff(tags | more, [data[: height // 2].tobytes(), data[height // 2 :].tobytes()], order=order)


def rgb_tiff(more: dict[int, list[int] | bytes] | None = None, part: bytes | None = None, **options) -> bytes:
    """Return `photo()` as an uncompressed TIFF of two strips, with `more` tags; `part` replaces the second."""
    rows = photo().tobytes()
    tags = {256: [64], 257: [48], 258: [8, 8, 8], 259: [1], 262: [2], 277: [3], 278: [24]}
    halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :] if part is None else part]
    return tiff(tags | (more or {}), halves, **options)


def tiff_of_pages(pages: list[dict], *, order: str = "<", big: bool = False) -> bytes:
    """Build a TIFF of several grey pictures, uncompressed, in the order given.

    Each page is a dict: `pixels` (H, W) uint8, `tags` beside those of the form, and `below`, a list of such dicts that
    become its SubIFDs.
    """
    start, code, room = (b"II" if order == "<" else b"MM"), ("Q" if big else "I"), 8 if big else 4
    head = start + (struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else struct.pack(order + "HI", 42, 0))
    out = bytearray(head)
    link = len(head) - room

    def add(page: dict) -> int:
        """Append a directory without a successor; return where it is."""
        below = [add(child) for child in page.get("below", ())]
        height, width = page["pixels"].shape
        at = len(out)
        out.extend(page["pixels"].tobytes())
        tags: dict[int, list[int] | bytes] = {
            256: [width],
            257: [height],
            258: [8],
            259: [1],
            262: [1],
            277: [1],
        }
        tags |= {273: [at], 278: [height], 279: [height * width]} | ({330: below} if below else {})
        entries = b""
        for tag, values in sorted((tags | page.get("tags", {})).items()):
            packed = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}I", *values)
            kind, number = (2, len(packed)) if isinstance(values, bytes) else (4, len(values))
            if len(packed) > room:
                out.extend(packed)
                packed = struct.pack(order + code, len(out) - len(packed))
            entries += struct.pack(f"{order}HH{code}", tag, kind, number) + packed.ljust(room, b"\0")
        at = len(out)
        out.extend(struct.pack(order + ("Q" if big else "H"), len(entries) // (20 if big else 12)))
        out.extend(entries + bytes(room))
        return at

    for page in pages:
        at = add(page)
        out[link : link + room] = struct.pack(order + code, at)
        link = len(out) - room
    return bytes(out)


def _page(height: int, width: int, subfile: int | None = None, **more) -> dict:
    """Return a page for `tiff_of_pages`; of 48 x 64 pixels it is `photo`, of other sizes its negative."""
    pixels = photo(height, width, 1)
    tags = ({} if subfile is None else {254: [subfile]}) | more.pop("tags", {})
    return {"pixels": pixels if (height, width) == (48, 64) else 255 - pixels, "tags": tags, **more}


def paged_tiffs() -> dict[str, tuple[bytes, Expectation]]:
    """Return TIFFs of several directories, of which at most one is the picture: that of 48 x 64 pixels."""
    big, small = _page(48, 64, 0), _page(12, 16, 1)
    plain, plain_small = _page(48, 64), _page(12, 16)
    unflagged, first = Expectation(size=(48, 64), channels=1), ("full-size-taken",)
    taken = Expectation(size=(48, 64), channels=1, notes=first)
    pages, unclear = Expectation("multi_page"), Expectation("which_picture")
    turned = {274: [6], 315: b"A. Nobody\0"}
    files = {
        "thumbnail-first": ([small, big], taken),
        "thumbnail-first-old-flag": ([_page(12, 16, tags={255: [2]}), plain], taken),
        "thumbnail-then-unflagged": ([small, plain], taken),
        "below-a-thumbnail": ([_page(12, 16, 1, below=[_page(24, 32, 1), big])], taken),
        "below-a-thumbnail-turned": (
            [_page(12, 16, 1, below=[big], tags=turned)],
            Expectation(size=(64, 48), channels=1, notes=(*first, "oriented")),
        ),
        "below-an-unflagged-thumbnail": ([_page(12, 16, below=[plain])], taken),
        "thumbnail-below": ([_page(48, 64, 0, below=[small, plain_small])], unflagged),
        "pyramid": ([big, _page(24, 32, 1), small], unflagged),
        "pyramid-smallest-first": ([small, _page(24, 32, 1), _page(48, 64, 1)], taken),
        "mask-beside": ([big, _page(48, 64, 4)], unflagged),
        "alone-and-called-reduced": ([_page(48, 64, 1)], unflagged),
        "three-pages": ([_page(48, 64, 2)] * 3, pages),
        "two-sizes": ([plain_small, plain], pages),
        "pages-after-a-thumbnail": ([small, big, big], pages),
        "two-full-below": ([_page(12, 16, 1, below=[big, big])], unclear),
        "larger-copy": ([big, _page(96, 128, 1)], unclear),
        "copies-of-other-shapes": ([_page(12, 16, 1), _page(48, 64, 1), _page(30, 30, 1)], unclear),
    }
    return {
        f"pages/{name}.tif": (
            tiff_of_pages(made, order=">" if number % 2 else "<", big=number % 3 == 2),
            wanted,
        )
        for number, (name, (made, wanted)) in enumerate(files.items())
    }


def _premultiplied_tiff() -> bytes:
    return (
        pyvips.Image.new_from_array(photo(channels=4))
        .copy(interpretation="srgb")
        .tiffsave_buffer(premultiply=True)
    )


def _without_adobe(jpeg: bytes) -> bytes:
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def _metadata() -> dict[str, tuple[bytes, Expectation]]:
    members = {}
    for orientation in range(1, 9):
        size = (48, 64) if orientation < 5 else (64, 48)
        notes = ("oriented",) if orientation > 1 else ()
        block = exif_block(orientation)
        expectation = Expectation(size=size, notes=notes)
        members[f"oriented/{orientation}.jpg"] = (saved(photo(), "JPEG", exif=block, quality=95), expectation)
        members[f"oriented/{orientation}.png"] = (saved(photo(), exif=block), expectation)
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    turned_size = Expectation(size=(64, 48), notes=("oriented",))
    fits, foreign = (Expectation(size=(48, 64)), Expectation(size=(48, 64), notes=("icc-dropped",)))
    grey_foreign = Expectation(size=(48, 64), channels=1, notes=("icc-dropped",))
    icc = rgb_profile()
    return {
        **members,
        "oriented/turned.webp": (saved(photo(), "WEBP", exif=turned), turned_size),
        "oriented/turned.tif": (saved(photo(), "TIFF", exif=turned), turned_size),
        "profile/rgb.jpg": (saved(photo(), "JPEG", icc_profile=icc), fits),
        "profile/rgb.png": (saved(photo(), icc_profile=icc), fits),
        "profile/rgb.webp": (saved(photo(), "WEBP", icc_profile=icc), fits),
        "profile/rgb.tif": (saved(photo(), "TIFF", icc_profile=icc), fits),
        "profile/damaged.jpg": (saved(photo(), "JPEG", icc_profile=icc[:50]), foreign),
        "profile/rgb-on-grey.jpg": (saved(photo(channels=1), "JPEG", icc_profile=icc), grey_foreign),
    }


def _shapes_and_names() -> dict[str, tuple[bytes, Expectation]]:
    plain, good = saved(photo(20, 30)), Expectation(size=(20, 30))
    shapes = {
        f"shapes/{h}x{w}.png": (saved(photo(h, w)), Expectation(size=(h, w)))
        for h, w in ((1, 1), (1, 5000), (5000, 1))
    }
    names = (
        "with space.png",
        "100%25 %zz.png",
        "hash#tag.png",
        "what?.png",
        "a&b=c;d.png",
        "'quoted\".png",
        "caf\u00e9 nfc.png",
        "cafe\u0301 nfd.png",
        "\u5199\u771f.png",
        "long" * 55 + ".png",
        "deep/er/and/deep/er/still.png",
        "UPPER.PNG",
        "two.dots.png",
    )
    allowed = [name for name in names if os.name != "nt" or not set(name) & set('?"')]
    return {
        **shapes,
        **dict.fromkeys(allowed, (plain, good)),
        "names/png-inside.jpg": (plain, good),
        "names/jpeg-inside.png": (saved(photo(20, 30), "JPEG"), good),
    }


def _broken() -> dict[str, tuple[bytes, Expectation]]:
    noise = np.random.default_rng(7).integers(0, 256, (64, 64, 3), np.uint8)
    jpeg, png, webp = saved(noise, "JPEG"), saved(noise), saved(noise, "WEBP")
    tiff, bmp = saved(noise, "TIFF"), saved(noise, "BMP")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0x10
    truncated, corrupt = Expectation("truncated"), Expectation("corrupt")
    members = {"jpg": jpeg, "png": png, "webp": webp, "tif": tiff, "bmp": bmp}
    html = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    return {
        **{
            f"broken/truncated.{suffix}": (data[: len(data) * 2 // 3], truncated)
            for suffix, data in members.items()
        },
        "broken/sparse.tif": (rgb_tiff(part=b""), corrupt),
        "broken/directory-behind-the-end.tif": (
            saved(photo(), "TIFF", compression="tiff_lzw")[:400],
            Expectation("truncated"),
        ),
        "broken/zstd.tif": (rgb_tiff({259: [50000]}), corrupt),
        "broken/only-a-signature.png": (b"\x89PNG\r\n\x1a\n", truncated),
        "broken/crc.png": (bytes(flipped), corrupt),
        "broken/zero-sides.png": (_huge_png(0, 0), corrupt),
        "broken/empty.jpg": (b"", Expectation("empty")),
        "broken/page.jpg": (html, Expectation("not_an_image")),
        "broken/text.png": (b"this is a note, not a picture\n" * 9, Expectation("not_an_image")),
        "broken/nulls.jpg": (bytes(5000), Expectation("not_an_image")),
        **_imperfect(),
    }


def _imperfect() -> dict[str, tuple[bytes, Expectation]]:
    """Return files whose pixels are complete though something else is wrong."""
    jpeg, png = saved(photo(), "JPEG"), saved(photo())
    progressive = saved(photo(), "JPEG", progressive=True)
    text = bytearray(png_chunk(b"tEXt", b"Title\0night"))
    text[-1] ^= 1

    def noted(*notes: str) -> Expectation:
        return Expectation(size=(48, 64), notes=notes)

    return {
        "imperfect/tail.jpg": (jpeg + b"trailing bytes" * 9, noted("trailing-bytes-dropped")),
        "imperfect/tail.png": (png + b"trailing bytes" * 9, noted("trailing-bytes-dropped")),
        "imperfect/no-eoi.jpg": (jpeg[:-2], noted("end-missing")),
        "imperfect/zeros-for-eoi.jpg": (jpeg[:-2] + bytes(512), noted("end-missing")),
        "imperfect/no-eoi-progressive.jpg": (progressive[:-2], noted("end-missing")),
        "imperfect/no-iend.png": (png[:-12], noted("end-missing")),
        "imperfect/half-iend.png": (png[:-5], noted("end-missing")),
        "imperfect/text-crc.png": (png[:33] + bytes(text) + png[33:], noted("damaged-chunk-dropped")),
    }


def _refused() -> dict[str, tuple[bytes, Expectation]]:
    frames = [Image.fromarray(photo()), Image.fromarray(photo()[::-1].copy())]
    both = {"save_all": True, "append_images": frames[1:]}
    animated, unsupported, bomb = (
        Expectation("animated"),
        Expectation("unsupported"),
        Expectation("too_large"),
    )
    lab = pyvips.Image.new_from_array(photo()).copy(interpretation="srgb").colourspace("lab")
    return {
        "refused/animated.webp": (saved(frames[0], "WEBP", **both), animated),
        "refused/animated.png": (saved(frames[0], "PNG", **both), animated),
        "refused/gif-inside.png": (saved(frames[0], "GIF", **both), animated),
        "refused/pages.tif": (saved(frames[0], "TIFF", **both), Expectation("multi_page")),
        "forms/still-gif.png": (saved(frames[0], "GIF"), Expectation(size=(48, 64), notes=("palette->rgb",))),
        "refused/float.tif": (saved(photo(channels=1).astype(np.float32), "TIFF"), unsupported),
        "refused/int32.tif": (saved(photo(channels=1).astype(np.int32), "TIFF"), unsupported),
        "refused/lab.tif": (lab.tiffsave_buffer(), unsupported),
        "refused/jpeg2000.tif": (rgb_tiff({259: [34712]}), unsupported),
        "refused/old-jpeg.tif": (rgb_tiff({259: [6], 262: [6]}), unsupported),
        "refused/ycbcr.tif": (saved(Image.fromarray(photo()).convert("YCbCr"), "TIFF"), unsupported),
        "refused/tiled-planes.tif": (rgb_tiff({284: [2], 322: [64], 323: [24]}), unsupported),
        "refused/bomb.png": (_huge_png(200_000, 200_000), bomb),
        "refused/bomb.webp": (b"RIFF\x22\0\0\0WEBPVP8L\x15\0\0\0\x2f\xff\xff\xff\x0f" + bytes(17), bomb),
    }


def _huge_png(height: int, width: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    )
