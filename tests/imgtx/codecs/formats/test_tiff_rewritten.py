"""TIFFs that are rewritten for the decoder: Zstandard, LZMA and Lab, in memory and through disk."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from imgtx.codecs import decode, read_header
from imgtx.codecs.lab import lab_to_srgb
from imgtx.codecs.spool import spool_in
from imgtx.errors import ImageError
from imgtx.imageops.geometry import Tile
from tests.support import zoo
from tests.support.pictures import MAX_PIXELS

PACKED = ("zstd", "lzma")


def both(data: bytes, folder: Path, **options):
    """Return the picture in memory, once the one through disk is known to be the same and to leave nothing else."""
    picture = decode(data, max_pixels=MAX_PIXELS, **options)
    spooled = spool_in(io.BytesIO(data), folder, max_pixels=MAX_PIXELS, **options)
    whole = Tile(0, 0, spooled.height, spooled.width)
    np.testing.assert_array_equal(spooled.read(whole), picture.pixels)
    if picture.alpha is not None:
        np.testing.assert_array_equal(spooled.read_alpha(whole), picture.alpha)
    assert (spooled.notes, spooled.missing) == (picture.notes, picture.missing)
    spooled.remove()
    assert not [*folder.iterdir()]
    return picture


def reasons(data: bytes, folder: Path) -> tuple[str, str]:
    """Return reason and message of a refusal, the same both ways."""
    with pytest.raises(ImageError) as in_memory:
        decode(data, max_pixels=MAX_PIXELS)
    with pytest.raises(ImageError) as on_disk:
        spool_in(io.BytesIO(data), folder, max_pixels=MAX_PIXELS)
    assert (in_memory.value.reason, str(in_memory.value)) == (on_disk.value.reason, str(on_disk.value))
    assert not [*folder.iterdir()]
    return in_memory.value.reason, str(in_memory.value)


@pytest.mark.parametrize("compression", PACKED)
def test_packed_pixels_are_exact(compression, tmp_path):
    for channels, depth in ((1, 8), (3, 8), (4, 8), (1, 16)):
        stored = zoo.photo(channels=channels, depth=depth)
        for options in ({}, {"tiffinfo": {317: 2}}, {"strip_size": 64 * channels * depth // 8 * 7}):
            got = both(zoo.saved(stored, "TIFF", compression=compression, **options), tmp_path)
            parts = [got.pixels, *([] if got.alpha is None else [got.alpha])]
            np.testing.assert_array_equal(np.dstack(parts).squeeze(), stored)
    bits = Image.fromarray(zoo.photo(channels=1)).convert("1")
    got = both(zoo.saved(bits, "TIFF", compression=compression), tmp_path)
    np.testing.assert_array_equal(got.pixels[:, :, 0], np.asarray(bits) * np.uint8(255))


def packed_strips(pixels: np.ndarray, rows: int, compression: str) -> list[bytes]:
    """Return strips of (height, width, 3) uint8 or uint16 pixels as Pillow's libtiff packs them."""
    strips = []
    for top in range(0, len(pixels), rows):
        raw = np.ascontiguousarray(pixels[top : top + rows]).view(np.uint8)
        data = zoo.saved(raw.reshape(len(raw), -1), "TIFF", compression=compression, strip_size=2**20)
        with Image.open(io.BytesIO(data)) as image:
            ((offset,), (length,)) = (image.tag_v2[tag] for tag in (273, 279))
        strips.append(data[offset : offset + length])
    return strips


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colour_which_pillow_cannot_read_is_exact(order, tmp_path):
    stored = zoo.photo(depth=16)
    strips = packed_strips(stored.astype(f"{order}u2"), 20, "zstd")
    tags = {256: [64], 257: [48], 258: [16] * 3, 259: [50000], 262: [2], 277: [3], 278: [20]}
    for big in (False, True):
        got = both(zoo.tiff(tags, strips, order=order, big=big), tmp_path)
        np.testing.assert_array_equal(got.pixels, stored)


def test_planes_and_tiles(tmp_path):
    stored = zoo.photo()
    tags = {256: [64], 257: [48], 258: [8] * 3, 259: [50000], 262: [2], 277: [3]}
    planes = [
        strip
        for band in range(3)
        for strip in packed_strips(np.repeat(stored[:, :, band : band + 1], 1, axis=2), 20, "zstd")
    ]
    got = both(zoo.tiff(tags | {278: [20], 284: [2]}, planes), tmp_path)
    np.testing.assert_array_equal(got.pixels, stored)
    padded = np.pad(stored, ((0, 16), (0, 32), (0, 0)))
    squares = [padded[top : top + 32, left : left + 32] for top in (0, 32) for left in (0, 32)]
    tiles = [packed_strips(square, 32, "zstd")[0] for square in squares]
    got = both(zoo.tiff(tags | {322: [32], 323: [32]}, tiles), tmp_path)
    np.testing.assert_array_equal(got.pixels, stored)
    with pytest.raises(ImageError, match="many times as large as the picture"):
        decode(zoo.tiff(tags | {322: [2**20], 323: [2**20]}, tiles[:1]), max_pixels=MAX_PIXELS)


def test_strips_that_all_lead_to_the_same_bytes_are_no_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("imgtx.codecs.formats.tiff_rewritten._ROOM", (16, 0))
    tags = {256: [64], 257: [48], 258: [8] * 3, 259: [1], 262: [8], 277: [3], 278: [1]}
    data = zoo.tiff(tags, [bytes(192)] * 48)
    both(data, tmp_path)
    for before, after in (
        ([8 + 192 * number for number in range(48)], [8] * 48),
        ([192] * 48, [192 * 48] * 48),
    ):
        data = data.replace(struct.pack("<48I", *before), struct.pack("<48I", *after))
    assert reasons(data, tmp_path)[0] == "corrupt"


def test_reversed_bits(tmp_path):
    stored = zoo.photo()
    reverse = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    strips = [strip.translate(reverse) for strip in packed_strips(stored, 20, "zstd")]
    tags = {256: [64], 257: [48], 258: [8] * 3, 259: [50000], 262: [2], 266: [2], 277: [3], 278: [20]}
    np.testing.assert_array_equal(both(zoo.tiff(tags, strips), tmp_path).pixels, stored)


def test_damaged_and_truncated_files(tmp_path, capfd):
    reason, message = reasons(zoo.rgb_tiff({259: [50000]}), tmp_path)
    assert (reason, "strip or tile 0 is damaged Zstandard data" in message) == ("corrupt", True)
    stored = zoo.photo()
    strips = packed_strips(stored, 8, "zstd")
    # The directory first, as cameras write it, so that it is there when the end is not.
    entries = {256: 64, 257: 48, 258: 8, 259: 50000, 262: 2, 277: 3, 278: 8}
    at = 8 + 2 + 12 * (len(entries) + 2) + 4
    body = at + 8 * len(strips)
    offsets = [body + sum(map(len, strips[:number])) for number in range(len(strips))]
    places = struct.pack(f"<{2 * len(strips)}I", *offsets, *map(len, strips))
    listed = [(tag, 1, value) for tag, value in entries.items()]
    listed += [(273, len(strips), at), (279, len(strips), at + 4 * len(strips))]
    directory = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in sorted(listed))
    head = b"II" + struct.pack("<HIH", 42, 8, len(listed)) + directory + bytes(4) + places
    whole = head + b"".join(strips)
    np.testing.assert_array_equal(both(whole, tmp_path).pixels, stored)
    cut = whole[: offsets[3] + 9]
    assert reasons(cut, tmp_path)[0] == "truncated"
    got = both(cut, tmp_path, accept_damage=True)
    assert got.notes == ("damage-accepted",)
    assert 0.5 <= got.missing < 0.55
    np.testing.assert_array_equal(got.pixels[:24], stored[:24])
    assert capfd.readouterr().err == ""


FUZZED = (
    zoo.lab_tiff(zoo.photo(20, 30), depth=16),
    zoo.saved(zoo.photo(20, 30), "TIFF", compression="zstd", strip_size=900),
    zoo.saved(zoo.photo(20, 30), "TIFF", compression="lzma"),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FUZZED), st.data())
def test_damaged_bytes_raise_image_error_or_decode(whole, data):
    bad = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        # The directory is at the end.
        bad[-data.draw(st.integers(1, min(len(bad), 260)))] = data.draw(st.integers(0, 255))
    try:
        got = decode(bytes(bad), max_pixels=1_000_000)
    except ImageError:
        return
    header = read_header(bytes(bad))
    assert got.pixels.shape == (header.height, header.width, header.channels)


@pytest.mark.parametrize("photometric", [8, 9])
@pytest.mark.parametrize(("depth", "order"), [(8, "<"), (16, "<"), (16, ">")])
def test_lab_of_known_colours(photometric, depth, order, tmp_path):
    """Every corner and many colours of sRGB; of 8 bits to what its coarse steps allow."""
    rng = np.random.default_rng(3)
    colours = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    colours[0, :8] = np.indices((2, 2, 2)).reshape(3, 8).T * 255
    colours[1] = np.arange(16)[:, None] * 17
    data = zoo.lab_tiff(colours, photometric=photometric, depth=depth, order=order, alpha=depth == 16)
    got = both(data, tmp_path)
    assert got.notes == ("lab->srgb",)
    error = np.abs(got.pixels / (257 if depth == 16 else 1) - colours)
    if depth == 16:
        assert error.max() < 1
        assert got.alpha is not None
        assert got.alpha.min() == 65535
        return
    # The steps of L* are 0.4, those of a* and b* 1.
    assert error[1].max() <= 2
    assert error.mean() < 1


def test_lab_equals_littlecms(tmp_path):
    """Its own arithmetic, not the coarse tables that it makes of it otherwise."""
    profiles = [ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")]
    colours = np.random.default_rng(4).integers(70, 190, (20, 20, 3), dtype=np.uint8)
    stored = np.asarray(
        ImageCms.profileToProfile(Image.fromarray(colours), *profiles[::-1], outputMode="LAB")
    )
    lab = Image.frombytes("LAB", (20, 20), stored.tobytes())
    exactly = ImageCms.buildTransform(*profiles, "LAB", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)
    wanted = np.asarray(ImageCms.applyTransform(lab, exactly))
    for compression in ("raw", "tiff_lzw", "zstd"):
        got = both(zoo.saved(lab, "TIFF", compression=compression), tmp_path)
        assert np.abs(got.pixels.astype(int) - wanted).max() <= 2
    lossy = both(zoo.saved(lab, "TIFF", compression="jpeg", quality=100), tmp_path)
    assert np.abs(lossy.pixels.astype(int) - wanted).mean() < 3


def test_greys_of_lab_have_no_tint():
    lightness = np.arange(256, dtype=np.uint8)[None, :, None]
    for form, middle in (("cielab", 0), ("icclab", 128)):
        made = lab_to_srgb(np.concatenate([lightness, np.full((1, 256, 2), middle, np.uint8)], 2), form)
        assert np.ptp(made.astype(int), axis=2).max() == 0
        assert (made[0, 0, 0], made[0, 255, 0]) == (0, 255)


def test_lab_is_the_same_in_strips_of_any_size():
    samples = np.random.default_rng(5).integers(0, 65536, (30, 37, 3), dtype=np.uint16)
    for form in ("cielab", "icclab"):
        whole = lab_to_srgb(samples, form)
        for count in (1, 7):
            parts = [lab_to_srgb(samples[top : top + count], form) for top in range(0, 30, count)]
            np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({258: [8] * 4, 277: [4], 338: [1]}, "with straight alpha or without"),
        ({258: [8], 277: [1]}, "cielab TIFF of 1 channels"),
        ({258: [32] * 3}, "32-bit cielab TIFF"),
    ],
)
def test_other_lab_is_refused(tags, said, tmp_path):
    given = {256: [64], 257: [48], 258: [8] * 3, 259: [1], 262: [8], 277: [3], 278: [48]}
    reason, message = reasons(zoo.tiff(given | tags, [bytes(64 * 48 * 12)]), tmp_path)
    assert reason == "unsupported"
    assert said in message
