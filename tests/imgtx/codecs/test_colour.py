"""What decides how pixels display reaches the output, or the pixels are converted to sRGB with a note, or refused."""

import io
import struct
import zlib

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from imgtx.codecs import WRITABLE, Picture, carry_of, decode, encode
from imgtx.codecs.spool import SpoolWriter, spool_in
from imgtx.errors import ImageError
from imgtx.imageops.geometry import Tile
from tests.support import zoo
from tests.support.pictures import MAX_PIXELS

GAMMA_1 = (b"gAMA", struct.pack(">I", 100_000))
SRGB_GAMMA = (b"gAMA", struct.pack(">I", 45_455))
ADOBE_RGB = (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000))
SRGB = (b"sRGB", b"\0")
P3, BT709, PQ, HLG = (
    (b"cICP", bytes(code)) for code in ([12, 13, 0, 1], [1, 1, 0, 1], [9, 16, 0, 1], [9, 18, 0, 1])
)
SBIT = (b"sBIT", b"\5\5\5")
LIGHTS = [(b"mDCV", bytes(24)), (b"cLLI", bytes(8))]


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with chunks before its palette and pixels."""
    whole = pyvips.Image.new_from_array(pixels).pngsave_buffer(keep="none")
    return whole[:33] + b"".join(zoo.png_chunk(kind, body) for kind, body in chunks) + whole[33:]


def chunks_of(data: bytes) -> dict[bytes, bytes]:
    found, at = {}, 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        found[kind] = data[at + 8 : at + 8 + length]
        at += 12 + length
    return found


def profile(gamma: float = 2.2, kind: str = "RGB ", primaries: tuple[float, ...] = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06),
            cicp: int = 0) -> bytes:  # fmt: skip
    """Return a matrix profile, or a grey one, of version 4 with one curve; `cicp` adds such a tag with a transfer."""

    def tag(kind: bytes, body: bytes) -> bytes:
        return kind + bytes(4) + body

    def fixed(*numbers: float) -> bytes:
        return struct.pack(f">{len(numbers)}i", *(round(n * 65536) for n in numbers))

    text = "made here".encode("utf-16-be")
    described = tag(b"mluc", struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text)
    curve = tag(b"para", struct.pack(">HH", 0, 0) + fixed(gamma))
    tags = {b"desc": described, b"cprt": described, b"wtpt": tag(b"XYZ ", fixed(0.9642, 1, 0.8249))}
    if kind == "GRAY":
        tags[b"kTRC"] = curve
    else:
        points = [
            np.array([x / y, 1, (1 - x - y) / y])
            for x, y in zip(primaries[::2], primaries[1::2], strict=True)
        ]
        matrix, white = np.stack(points, 1), np.array([0.9505, 1, 1.089])
        cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
        gain = cones @ np.array([0.9642, 1, 0.8249]) / (cones @ white)
        matrix = np.linalg.inv(cones) @ np.diag(gain) @ cones @ (matrix * np.linalg.solve(matrix, white))
        for name, column in zip("rgb", matrix.T, strict=True):
            tags[f"{name}XYZ".encode()] = tag(b"XYZ ", fixed(*column))
            tags[f"{name}TRC".encode()] = curve
    if cicp:
        tags[b"cicp"] = tag(b"cicp", bytes([9, cicp, 0, 1]))
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(value))
        body += value.ljust(-(-len(value) // 4) * 4, b"\0")
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), bytes(4), 0x04300000, b"mntr", kind.encode(), b"XYZ "
    )
    head = head.ljust(36, b"\0") + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + table + body


def srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def by_engine(pixels: np.ndarray, icc: bytes) -> np.ndarray:
    """Return 8-bit levels converted to sRGB by littlecms, as int."""
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    engine = ImageCms.buildTransform(source, target, "RGB", "RGB")
    return np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), engine)).astype(int)


def written(picture: Picture, format: str, tmp_path) -> tuple[bytes, Picture, tuple[str, ...]]:
    """Encode losslessly where the format can; return file, decoded picture, notes, the same on disk as in memory."""
    data, notes = encode(picture, format, quality=100)
    height, width, channels = picture.pixels.shape
    writer = SpoolWriter(tmp_path, height, width, channels, picture.pixels.dtype, picture.alpha is not None)
    writer.put(0, 0, picture.pixels, picture.alpha)
    path = writer.finish(format, 100, carry_of(picture))
    on_disk = decode(path.read_bytes(), max_pixels=MAX_PIXELS)
    in_memory = decode(data, max_pixels=MAX_PIXELS)
    assert writer.notes == notes
    if format != "jpeg":
        np.testing.assert_array_equal(on_disk.pixels, in_memory.pixels)
    assert (on_disk.icc, on_disk.colour) == (in_memory.icc, in_memory.colour)
    return data, in_memory, notes


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "chunks",
    [
        [GAMMA_1],
        [SRGB_GAMMA],
        [GAMMA_1, ADOBE_RGB],
        [ADOBE_RGB],
        [SRGB],
        [SRGB, SRGB_GAMMA],
        [P3],
        [PQ, *LIGHTS],
        [HLG],
    ],
    ids=lambda chunks: " ".join(kind.decode() for kind, _ in chunks),
)
def test_png_to_png_carries_what_decides_the_display(chunks, channels, depth, tmp_path):
    source = decode(png(zoo.photo(channels=channels, depth=depth), *chunks), max_pixels=MAX_PIXELS)
    data, got, notes = written(source, "png", tmp_path)
    kept = chunks_of(data)
    assert {kind: kept[kind] for kind, _ in chunks} == dict(chunks)
    assert (source.notes, notes) == ((), ())
    np.testing.assert_array_equal(got.pixels, source.pixels)
    spooled = spool_in(io.BytesIO(data), tmp_path, max_pixels=MAX_PIXELS)
    assert spooled.carry.colour == got.colour == source.colour


def test_a_profile_is_carried_beside_what_it_overrides(tmp_path):
    chunk = (b"iCCP", b"icc\0\0" + zlib.compress(profile()))
    source = decode(png(zoo.photo(), SRGB, SRGB_GAMMA, chunk), max_pixels=MAX_PIXELS)
    data, _, notes = written(source, "png", tmp_path)
    assert notes == ()
    # Some readers prefer sRGB to the profile, which decided before.
    assert {b"iCCP", b"gAMA"} == {b"iCCP", b"gAMA", b"sRGB"} & chunks_of(data).keys()
    for format in ("jpeg", "webp", "tiff"):
        _, got, notes = written(source, format, tmp_path)
        assert (got.icc, notes) == (profile(), ())


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("format", [name for name in WRITABLE if name not in ("png", "jpeg")])
@pytest.mark.parametrize(
    ("chunks", "gamma", "note"),
    [([GAMMA_1], 1.0, "gamma->srgb"), ([(b"gAMA", struct.pack(">I", 55_556))], 1.8, "gamma->srgb"),
     ([SRGB_GAMMA], 0, ""),
     ([SRGB, GAMMA_1], 0, ""), ([(b"gAMA", bytes(4))], 0, ""), ([(b"cICP", bytes([1, 8, 0, 1]))], 1.0, "cicp->srgb"),
     ([(b"cICP", bytes([1, 13, 0, 1])), GAMMA_1], 0, "")],
)  # fmt: skip
def test_other_formats_display_a_gamma_by_its_conversion(chunks, gamma, note, format, depth, tmp_path):
    source = decode(png(zoo.photo(depth=depth), *chunks), max_pixels=MAX_PIXELS)
    _, got, notes = written(source, format, tmp_path)
    top = 2**depth - 1
    levels = source.pixels / top
    expected = (srgb(levels**gamma) if gamma else levels) * np.iinfo(got.pixels.dtype).max
    # AVIF codes luma and chroma, each rounded, also where it keeps every pixel's own chroma.
    assert np.abs(got.pixels - expected).max() <= (4 if format == "avif" else 1)
    assert [n for n in notes if "srgb" in n] == ([note] if note else [])


def test_grey_and_colour_convert_alike(tmp_path):
    grey, colour = (
        decode(png(pixels, GAMMA_1), max_pixels=MAX_PIXELS)
        for pixels in (zoo.photo(channels=1), np.repeat(zoo.photo(channels=1)[..., None], 3, axis=2))
    )
    one, three = written(grey, "tiff", tmp_path)[1].pixels, written(colour, "tiff", tmp_path)[1].pixels
    np.testing.assert_array_equal(np.repeat(one, 3, axis=2), three)


@pytest.mark.parametrize("depth", [8, 16])
def test_primaries_convert_as_a_colour_engine_does(depth, tmp_path):
    """The reference is littlecms by a profile of the same gamma and primaries, in 8 bits."""
    source = decode(png(zoo.photo(depth=depth), SRGB_GAMMA, ADOBE_RGB), max_pixels=MAX_PIXELS)
    _, got, notes = written(source, "tiff", tmp_path)
    assert notes == ("gamma->srgb",)
    levels = np.rint(source.pixels / (257 if depth == 16 else 1)).astype(np.uint8)
    reference = by_engine(levels, profile(2.2))
    # A step of 8 bits in the shadows is up to 13 levels of sRGB.
    bright = reference.min(axis=2) > 60
    scaled = got.pixels / (257 if depth == 16 else 1)
    assert np.abs(scaled - reference)[bright].max() <= (2 if depth == 8 else 3)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("chunk", [P3, BT709], ids=["P3", "BT.709"])
def test_cicp_converts_by_the_published_numbers(chunk, depth, tmp_path):
    source = decode(png(zoo.photo(depth=depth), chunk), max_pixels=MAX_PIXELS)
    _, got, notes = written(source, "tiff", tmp_path)
    assert notes == ("cicp->srgb",)
    levels = source.pixels / (2**depth - 1)
    if chunk is P3:
        light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
        light = light @ np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]).T
    else:
        light = np.where(levels < 0.081, levels / 4.5, ((levels + 0.099) / 1.099) ** (1 / 0.45))
    expected = srgb(light.clip(0, 1)) * 255
    assert np.abs(got.pixels / (257 if depth == 16 else 1) - expected).max() <= 1.5


@pytest.mark.parametrize(("chunks", "name"), [([PQ, *LIGHTS], "PQ"), ([HLG], "HLG")])
@pytest.mark.parametrize("format", [name for name in WRITABLE if name != "png"])
def test_hdr_that_cannot_be_kept_is_refused_by_name(chunks, name, format, tmp_path):
    source = decode(png(zoo.photo(depth=16), *chunks), max_pixels=MAX_PIXELS)
    with pytest.raises(ImageError, match=rf"HDR picture \({name}\).*{format}.*write png") as caught:
        written(source, format, tmp_path)
    assert caught.value.reason == "unsupported"
    by_profile = Picture(zoo.photo(), None, profile(cicp=chunks[0][1][1]), b"", "jpeg", ())
    if format == "bmp":
        with pytest.raises(ImageError, match="HDR"):
            encode(by_profile, format, quality=90)
    else:
        assert encode(by_profile, format, quality=90)[1] == ()


def test_colours_that_cannot_be_converted_are_refused():
    for body in ([9, 17, 0, 1], [2, 13, 0, 1], [1, 13, 1, 1], [1, 13, 0, 0]):
        source = decode(png(zoo.photo(), (b"cICP", bytes(body))), max_pixels=MAX_PIXELS)
        assert encode(source, "png", quality=90)[1] == ()
        with pytest.raises(ImageError, match="cICP"):
            encode(source, "jpeg", quality=90)


@pytest.mark.parametrize("format", ["webp", "bmp"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_a_grey_profile_that_is_not_held_converts_the_pixels(gamma, depth, format, tmp_path):
    levels = zoo.photo(channels=1, depth=depth)[..., None]
    icc = profile(gamma, "GRAY")
    _, got, notes = written(Picture(levels, None, icc, b"", "tiff", ()), format, tmp_path)
    assert "icc->srgb" in notes
    assert "icc-dropped" not in notes
    expected = srgb((levels / (2**depth - 1)) ** gamma) * 255
    assert np.abs(got.pixels - expected).max() <= 2
    assert got.icc == b""


@pytest.mark.parametrize("depth", [8, 16])
def test_any_profile_that_bmp_cannot_hold_converts_the_pixels(depth, tmp_path):
    icc = profile()
    source = Picture(zoo.photo(depth=depth), None, icc, b"", "tiff", ())
    _, got, notes = written(source, "bmp", tmp_path)
    assert notes == (("icc->srgb",) if depth == 8 else ("icc->srgb", "16bit->8bit"))
    reference = by_engine(zoo.photo(), icc)
    bright = reference.min(axis=2) > 60
    assert np.abs(got.pixels - reference)[bright].max() <= (2 if depth == 8 else 3)
    assert np.abs(reference - zoo.photo()).max() > 20


def test_a_profile_that_means_srgb_or_nothing_changes_no_pixel(tmp_path):
    for icc in (zoo.rgb_profile(), zoo.rgb_profile()[:132] + bytes(len(zoo.rgb_profile()) - 132)):
        _, got, notes = written(Picture(zoo.photo(), None, icc, b"", "jpeg", ()), "bmp", tmp_path)
        assert notes == ("icc-dropped",)
        np.testing.assert_array_equal(got.pixels, zoo.photo())


def test_formats_that_hold_a_profile_get_it(tmp_path):
    for format in ("png", "jpeg", "webp", "tiff"):
        _, got, notes = written(Picture(zoo.photo(), None, profile(), b"", "tiff", ()), format, tmp_path)
        assert (got.icc, notes) == (profile(), ())
    for format in ("png", "jpeg", "tiff"):
        grey = Picture(zoo.photo(channels=1)[..., None], None, profile(kind="GRAY"), b"", "tiff", ())
        _, got, notes = written(grey, format, tmp_path)
        assert (got.icc, notes) == (profile(kind="GRAY"), ())


def test_a_profile_in_a_bmp_is_read():
    bmp, icc = zoo.saved(zoo.photo(), "BMP"), profile()
    more = bytes(16) + b"DEBM" + bytes(48) + struct.pack("<4I", 4, 124 + len(bmp) - 54, len(icc), 0)
    head = struct.pack("<2sIII", b"BM", len(bmp) + 84 + len(icc), 0, 138) + struct.pack("<I", 124)
    got = decode(head + bmp[18:54] + more + bmp[54:] + icc, max_pixels=MAX_PIXELS)
    assert (got.icc, got.notes) == (icc, ())
    np.testing.assert_array_equal(got.pixels, zoo.photo())
    linked = more.replace(b"DEBM", b"KNIL")
    got = decode(head + bmp[18:54] + linked + bmp[54:] + icc, max_pixels=MAX_PIXELS)
    assert (got.icc, got.notes) == (b"", ("icc-dropped",))


def test_alpha_is_laid_over_white_in_srgb(tmp_path):
    rgba = zoo.photo(channels=4)
    source = decode(png(rgba, GAMMA_1), max_pixels=MAX_PIXELS)
    _, got, notes = written(source, "bmp", tmp_path)
    assert notes == ("gamma->srgb", "alpha->white")
    cover = rgba[..., 3:] / 255
    expected = srgb(rgba[..., :3] / 255) * 255 * cover + 255 * (1 - cover)
    assert np.abs(got.pixels - expected).max() <= 1.5


def test_significant_bits_are_dropped_by_name():
    assert decode(png(zoo.photo(), SBIT), max_pixels=MAX_PIXELS).notes == ("sbit-dropped",)


def test_strips_of_any_size_convert_alike(tmp_path, monkeypatch):
    source = decode(png(zoo.photo(97, 61, depth=16), P3), max_pixels=MAX_PIXELS)
    whole = written(source, "tiff", tmp_path)[1].pixels
    monkeypatch.setattr("imgtx.codecs.spool._STRIP_PIXELS", 61)
    np.testing.assert_array_equal(written(source, "tiff", tmp_path)[1].pixels, whole)
    everything = Tile(0, 0, 97, 61)
    again = spool_in(io.BytesIO(encode(source, "tiff", quality=90)[0]), tmp_path, max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(again.read(everything), whole)
