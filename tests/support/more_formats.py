"""Files of the formats that imgtx mostly reads, most of them built without the library that decodes them.

Every picture is `photo()` in 48 x 64 pixels unless its name says otherwise.
"""

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pyvips
from PIL import Image

from tests.support.zoo import Expectation, photo, rgb_profile, saved


def netpbm(kind: str, pixels: np.ndarray, top: int = 0, comment: str = "") -> bytes:
    """Return a PPM, PGM or PBM of `kind` P1 to P6 from (H, W) or (H, W, 3) levels up to `top`."""
    height, width = pixels.shape[:2]
    highest = f"{top}\n" if top else ""
    head = f"{kind}\n{comment}{width} {height}\n{highest}".encode()
    if kind in ("P1", "P2", "P3"):
        return head + b"\n".join(b" ".join(b"%d" % level for level in row.ravel()) for row in pixels)
    if kind == "P4":
        return head + np.packbits(pixels, axis=1).tobytes()
    return head + pixels.astype(">u2" if top > 255 else np.uint8).tobytes()


def pam(pixels: np.ndarray, top: int, tuple_type: str) -> bytes:
    height, width, depth = pixels.shape
    lines = f"WIDTH {width}\nHEIGHT {height}\nDEPTH {depth}\nMAXVAL {top}\nTUPLTYPE {tuple_type}\n"
    return f"P7\n{lines}ENDHDR\n".encode() + pixels.astype(">u2" if top > 255 else np.uint8).tobytes()


def psd(
    planes: list[np.ndarray],
    mode: int,
    *,
    packed: bool = False,
    big: bool = False,
    layers: int = 0,
    palette: bytes = b"",
    resources: dict[int, bytes] | None = None,
) -> bytes:
    """Return a PSD (PSB if `big`) of channels (H, W) uint8 or uint16; `layers` is the count of its layer section."""
    height, width = planes[0].shape
    bits = planes[0].itemsize * 8
    out = struct.pack(">4sH6xHIIHH", b"8BPS", 2 if big else 1, len(planes), height, width, bits, mode)
    out += struct.pack(">I", len(palette)) + palette
    blocks = b""
    for name, body in (resources or {}).items():
        blocks += b"8BIM" + struct.pack(">HHI", name, 0, len(body)) + body + b"\0" * (len(body) % 2)
    out += struct.pack(">I", len(blocks)) + blocks
    form = ">Q" if big else ">I"
    section = struct.pack(form, 2) + struct.pack(">h", layers) if layers else b""
    out += struct.pack(form, len(section)) + section + struct.pack(">H", packed)
    rows = [row.astype(f">u{bits // 8}").tobytes() for plane in planes for row in plane]
    if not packed:
        return out + b"".join(rows)
    parts = [pack_bits(row) for row in rows]
    lengths = struct.pack(f">{len(parts)}{'I' if big else 'H'}", *map(len, parts))
    return out + lengths + b"".join(parts)


def pack_bits(row: bytes) -> bytes:
    """Pack a row by PackBits: runs of equal bytes, and others as they are."""
    out, at = b"", 0
    while at < len(row):
        run = 1
        while run < 128 and row[at : at + 1] == row[at + run : at + run + 1]:
            run += 1
        if run > 2:
            out, at = out + bytes([257 - run]) + row[at : at + 1], at + run
            continue
        part = row[at : at + 100]
        out, at = out + bytes([len(part) - 1]) + part, at + len(part)
    return out


def bitmap_icon(*sizes: int, bits: int = 32) -> bytes:
    """Return an ICO of square bitmaps: `photo` in colour, transparent in its upper half."""
    bodies = []
    for size in sizes:
        pixels = photo(size, size)[::-1, :, ::-1]
        opaque = np.arange(size)[::-1] >= size // 2
        alpha = np.broadcast_to(opaque[:, None, None] * np.uint8(255), (size, size, 1))
        stored = np.concatenate([pixels, alpha], axis=2)[:, :, : bits // 8]
        mask = np.packbits(np.broadcast_to(~opaque[:, None], (size, -(-size // 32) * 32)), axis=1)
        head = struct.pack("<IiiHHIIiiII", 40, size, 2 * size, 1, bits, 0, 0, 0, 0, 0, 0)
        bodies.append(head + stored.tobytes() + mask.tobytes())
    return icon([(size, bits) for size in sizes], bodies)


def icon(sizes: list[tuple[int, int]], bodies: list[bytes]) -> bytes:
    at, entries = 6 + 16 * len(bodies), b""
    for (size, bits), body in zip(sizes, bodies, strict=True):
        entries += struct.pack("<BBBBHHII", size & 255, size & 255, 0, 0, 1, bits, len(body), at)
        at += len(body)
    return b"\0\0\1\0" + struct.pack("<H", len(bodies)) + entries + b"".join(bodies)


def jp2(image: Image.Image | np.ndarray, **options) -> bytes:
    return saved(image, "JPEG2000", **options)


def with_jp2_colour(data: bytes, body: bytes) -> bytes:
    """Return a JP2 whose colour box has another body."""
    at = data.index(b"colr")
    (length,) = struct.unpack_from(">I", data, at - 4)
    more = len(body) + 8 - length
    outer = data.index(b"jp2h")
    (outer_length,) = struct.unpack_from(">I", data, outer - 4)
    data = data[: outer - 4] + struct.pack(">I", outer_length + more) + data[outer:]
    return data[: at - 4] + struct.pack(">I4s", len(body) + 8, b"colr") + body + data[at - 4 + length :]


def avif(image: Image.Image | np.ndarray, **options) -> bytes:
    return saved(image, "AVIF", **{"quality": 100, "subsampling": "4:4:4"} | options)


def deep_avif(bits: int, channels: int = 3) -> bytes:
    """Return an AVIF of 10 or 12 bits, made by libvips without loss."""
    deep = pyvips.Image.new_from_array(photo(channels=channels, depth=16)).copy(interpretation="rgb16")
    return deep.heifsave_buffer(compression="av1", bitdepth=bits, lossless=True)


def with_nclx(data: bytes, primaries: int, transfer: int) -> bytes:
    """Return an AVIF that states other codes for its colour."""
    at = data.index(b"nclx") + 4
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def gif(image: Image.Image, **options) -> bytes:
    return saved(image, "GIF", **options)


def small_frame_gif() -> bytes:
    """Return a GIF whose one frame, 20 x 10 pixels at (5, 3), does not cover its canvas."""
    whole = gif(Image.fromarray(photo(10, 20)).quantize(16))
    at = whole.index(b"\x2c", 13 + 3 * 16)
    head = whole[:6] + struct.pack("<HH", 64, 48) + whole[10:at]
    return head + struct.pack("<BHH", 0x2C, 5, 3) + whole[at + 5 :]


def tga(image: Image.Image | np.ndarray, **options) -> bytes:
    return saved(image, "TGA", **options)


# A table of one line a file.
# fmt: off
def more_files() -> dict[str, tuple[bytes, Expectation]]:
    """Return members of the zoo in these formats."""
    rgb, rgba, grey, grey16 = photo(), photo(channels=4), photo(channels=1), photo(channels=1, depth=16)
    rgb16, bits = photo(depth=16), (photo(channels=1) > 127).astype(np.uint8)
    planes, planes16 = [rgb[..., band] for band in range(3)], [rgb16[..., band] for band in range(3)]
    palette = Image.fromarray(rgb).quantize(32)
    clear = palette.copy()
    clear.info["transparency"] = 3
    frames = {"save_all": True, "append_images": [Image.fromarray(rgb[::-1].copy())]}

    def of(channels: int = 3, depth: int = 8, *notes: str, alpha: bool = False) -> Expectation:
        return Expectation("", (48, 64), channels, depth, alpha, notes)

    colour, one, broken, unsupported = of(), of(1), Expectation("truncated"), Expectation("unsupported")
    written = of(3, 8, "palette->rgb")
    made = {
        "more/rgb.ppm": (netpbm("P6", rgb, 255), colour),
        "more/rgb16.ppm": (netpbm("P6", rgb16, 65535), of(3, 16)),
        "more/text.ppm": (netpbm("P3", rgb, 255, "# a comment\n"), colour),
        "more/grey.pgm": (netpbm("P5", grey, 255, "# a comment\n"), one),
        "more/grey-10bit.pgm": (netpbm("P5", grey16 >> 6, 1023), of(1, 16, "levels-scaled")),
        "more/text.pgm": (netpbm("P2", grey, 255), one),
        "more/bits.pbm": (netpbm("P4", 1 - bits), of(1, 8, "1bit->grey")),
        "more/text.pbm": (netpbm("P1", 1 - bits), of(1, 8, "1bit->grey")),
        "more/rgba.pam": (pam(rgba, 255, "RGB_ALPHA"), of(alpha=True)),
        "more/several.ppm": (netpbm("P6", rgb, 255) * 2, Expectation("animated")),
        "more/cut.ppm": (netpbm("P6", rgb, 255)[:-9], broken),
        "more/cut-text.pgm": (netpbm("P2", grey, 255)[:-9], broken),
        "more/bomb.ppm": (b"P6\n200000 200000\n255\n" + bytes(99), Expectation("too_large")),
        "more/above-top.pgm": (netpbm("P5", grey, 100), Expectation("corrupt")),
        "more/still.gif": (gif(palette), written),
        "more/clear.gif": (gif(clear, transparency=3), of(3, 8, "palette->rgb", alpha=True)),
        "more/small-frame.gif": (small_frame_gif(), of(3, 8, "palette->rgb", alpha=True)),
        "more/interlaced.gif": (gif(palette, interlace=True), written),
        "more/comment.gif": (gif(palette, comment=b"hello"), of(3, 8, "text-dropped", "palette->rgb")),
        "more/animated.gif": (saved(rgb, "GIF", **frames), Expectation("animated")),
        "more/cut.gif": (gif(palette)[:-200], broken),
        "more/bomb.gif": (
            gif(palette)[:6] + struct.pack("<HH", 65535, 65535) + gif(palette)[10:],
            Expectation("too_large"),
        ),
        "more/rgb.tga": (tga(rgb), colour),
        "more/rle.tga": (tga(rgba, compression="tga_rle"), of(alpha=True)),
        "more/grey.tga": (tga(grey), one),
        "more/palette.tga": (tga(palette), written),
        "more/cut.tga": (tga(rgb)[:-2000], broken),
        "more/rgb.psd": (psd(planes, 3), colour),
        "more/packed.psd": (psd(planes, 3, packed=True), colour),
        "more/rgb16.psd": (psd(planes16, 3, packed=True), of(3, 16)),
        "more/grey.psd": (psd([grey], 1), one),
        "more/big.psb": (psd(planes, 3, big=True, packed=True), colour),
        "more/layers.psd": (psd([*planes, rgba[..., 3]], 3, layers=-2), of(3, 8, "layers-merged", alpha=True)),
        "more/channel.psd": (psd([*planes, grey], 3), of(3, 8, "extra-channel-dropped")),
        "more/cmyk.psd": (psd([*planes, 255 - grey * 0], 4), of(3, 8, "cmyk->rgb")),
        "more/palette.psd": (
            psd([grey], 2, palette=bytes(range(256)) * 3),
            of(3, 8, "palette->rgb"),
        ),
        "more/profile.psd": (psd(planes, 3, resources={1039: rgb_profile()}), colour),
        "more/lab.psd": (psd(planes, 9), unsupported),
        "more/no-composite.psd": (psd(planes, 3, resources={1057: bytes(5)}), unsupported),
        "more/cut.psd": (psd(planes, 3)[:-999], broken),
        "more/cut-packed.psd": (psd(planes, 3, packed=True)[:-99], broken),
        "more/bomb.psd": (
            struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 2**17, 2**17, 8, 3) + bytes(14),
            Expectation("too_large"),
        ),
        "more/sizes.ico": (bitmap_icon(16, 48, 32), Expectation(size=(48, 48), alpha=True, notes=("largest-taken",))),
        "more/24bit.ico": (bitmap_icon(20, bits=24), Expectation(size=(20, 20), alpha=True)),
        "more/png.ico": (icon([(0, 32)], [saved(photo(256, 256))]), Expectation(size=(256, 256))),
        "more/cut.ico": (bitmap_icon(16)[:-9], broken),
        "more/rgb.jp2": (jp2(rgb), colour),
        "more/rgba.jp2": (jp2(rgba), of(alpha=True)),
        "more/lossy.jp2": (jp2(rgb, irreversible=True, quality_layers=[20]), colour),
        "more/grey16.jp2": (jp2(grey16), of(1, 16)),
        "more/rgb.j2k": (jp2(rgb, no_jp2=True), colour),
        "more/cut.jp2": (jp2(rgb)[:-200], broken),
        "more/cmyk.jp2": (with_jp2_colour(jp2(rgba), struct.pack(">BBBI", 1, 0, 0, 12)), unsupported),
        "more/rgb.avif": (avif(rgb), colour),
        "more/rgba.avif": (avif(rgba), of(alpha=True)),
        "more/10bit.avif": (deep_avif(10), of(3, 16, "levels-scaled")),
        "more/12bit-alpha.avif": (deep_avif(12, 4), of(3, 16, "levels-scaled", alpha=True)),
        "more/profile.avif": (avif(rgb, icc_profile=rgb_profile()), colour),
        "more/turned.avif": (avif(rgb, exif=_turned()), Expectation(size=(64, 48), notes=("turned",))),
        "more/animated.avif": (avif(rgb, **frames), Expectation("animated")),
        "more/cut.avif": (avif(rgb)[:-200], broken),
    }
    return made | heic_files() | jxl_files()
# fmt: on


def heic(name: str) -> bytes:
    """Return a HEIC of `photo()`, encoded by pillow-heif 1.8 at quality 95: the library of imgtx encodes none."""
    return (Path(__file__).parent / "heic" / f"{name}.heic").read_bytes()


def heic_files() -> dict[str, tuple[bytes, Expectation]]:
    """Return members of the zoo that need the extra `heif`; none without it."""
    if not importlib.util.find_spec("pi_heif"):
        return {}
    size, sequence = (48, 64), heic("rgb")
    return {
        "more/rgb.heic": (heic("rgb"), Expectation(size=size)),
        "more/grey.heic": (heic("grey"), Expectation(size=size, channels=1)),
        "more/alpha.heic": (heic("alpha"), Expectation(size=size, alpha=True)),
        "more/10bit.heic": (heic("10bit"), Expectation(size=size, depth=16, notes=("levels-scaled",))),
        "more/turned.heic": (heic("turned"), Expectation(size=(64, 48), notes=("turned",))),
        "more/profile.heif": (heic("profile"), Expectation(size=size)),
        "more/two.heic": (heic("two"), Expectation(size=size, notes=("extra-pictures-dropped",))),
        "more/sequence.heic": (sequence[:8] + b"hevc" + sequence[12:], Expectation("animated")),
        "more/cut.heic": (heic("rgb")[:-99], Expectation("truncated")),
    }


def _turned() -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = 6
    return block


def jxl(pixels: np.ndarray, **options) -> bytes:
    import pylibjxl

    return pylibjxl.encode(np.ascontiguousarray(pixels), lossless=True, effort=3, **options)


def jxl_files() -> dict[str, tuple[bytes, Expectation]]:
    """Return members of the zoo that need the extra `jxl`; none without it."""
    if not importlib.util.find_spec("pylibjxl"):
        return {}
    import pylibjxl

    turned = pylibjxl.jpeg_to_jxl(saved(photo(), "JPEG", quality=95, exif=_turned()))
    size, bare = (48, 64), jxl(photo())
    codestream = bare if bare.startswith(b"\xff\x0a") else bare[bare.index(b"jxlc") + 4 :]
    whole = jxl(photo(), icc=rgb_profile())
    return {
        "more/rgb.jxl": (bare, Expectation(size=size)),
        "more/codestream.jxl": (codestream, Expectation(size=size)),
        "more/grey.jxl": (jxl(photo(channels=1)), Expectation(size=size, channels=1)),
        "more/rgba.jxl": (jxl(photo(channels=4)), Expectation(size=size, alpha=True)),
        "more/profile.jxl": (whole, Expectation(size=size)),
        "more/turned.jxl": (turned, Expectation(size=(64, 48))),
        "more/cut.jxl": (whole[:-99], Expectation("truncated")),
        "more/cut-codestream.jxl": (codestream[:-99], Expectation("corrupt")),
    }
