"""Images on disk give the same pixels, notes and errors as in memory, for all strips and orientations."""

import io
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtx.codecs import NOTES, Carry, Picture, carry_of, decode, encode, spool, vips
from imgtx.codecs.metadata import exif
from imgtx.codecs.spool import SpooledPicture, SpoolWriter, spool_in
from imgtx.errors import ImageError
from imgtx.imageops.geometry import Tile
from tests.support import zoo

MAX_PIXELS = 50_000_000


@pytest.fixture(scope="module")
def zoo_files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("zoo")
    return directory, zoo.build_zoo(directory)


def whole(spooled: SpooledPicture) -> Picture:
    everything = Tile(0, 0, spooled.height, spooled.width)
    alpha = spooled.read_alpha(everything) if spooled.alpha_path else None
    carry = spooled.carry
    pixels = spooled.read(everything)
    return Picture(pixels, alpha, carry.icc, carry.exif, carry.format, spooled.notes, colour=carry.colour)


def assert_same(got: Picture, wanted: Picture) -> None:
    np.testing.assert_array_equal(got.pixels, wanted.pixels)
    assert got.pixels.dtype == wanted.pixels.dtype
    assert (got.alpha is None) == (wanted.alpha is None)
    if got.alpha is not None and wanted.alpha is not None:
        np.testing.assert_array_equal(got.alpha, wanted.alpha)
    assert (got.icc, got.exif, got.colour, got.format, got.notes) == (
        wanted.icc,
        wanted.exif,
        wanted.colour,
        wanted.format,
        wanted.notes,
    )


def outcome(read: Callable[[], Picture]) -> Picture | str:
    """Return what was read, or the reason why it was refused."""
    try:
        return read()
    except ImageError as error:
        return error.reason


def write(image: Picture, directory, format: str, quality: int, step: tuple[int, int] = (7, 9)):
    """Write the picture through a SpoolWriter, in pieces of at most `step` in random order: (path, notes)."""
    height, width, channels = image.pixels.shape
    writer = SpoolWriter(directory, height, width, channels, image.pixels.dtype, image.alpha is not None)
    corners = [(top, left) for top in range(0, height, step[0]) for left in range(0, width, step[1])]
    np.random.default_rng(0).shuffle(corners)
    for top, left in corners:
        piece = slice(top, top + step[0]), slice(left, left + step[1])
        writer.put(top, left, image.pixels[piece], None if image.alpha is None else image.alpha[piece])
    path = writer.finish(format, quality, carry_of(image))
    return path, writer.notes


class TestSpoolIn:
    @pytest.mark.parametrize("strip_pixels", [2**22, 1])
    def test_the_whole_zoo_is_decoded_as_in_memory(self, zoo_files, tmp_path, monkeypatch, strip_pixels):
        monkeypatch.setattr(vips, "_STRIP_PIXELS", strip_pixels)
        directory, expected = zoo_files
        for key, wanted in expected.items():
            if wanted.written:
                spooled = spool_in(directory / key, tmp_path, max_pixels=MAX_PIXELS)
                assert_same(whole(spooled), decode((directory / key).read_bytes(), max_pixels=MAX_PIXELS))
                spooled.remove()
            else:
                with pytest.raises(ImageError) as caught:
                    spool_in(directory / key, tmp_path, max_pixels=MAX_PIXELS)
                assert caught.value.reason == wanted.reason, key
            assert not list(tmp_path.iterdir()), f"{key} left files behind"

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_rotating_strip_by_strip_equals_rotating_the_whole(self, tmp_path, monkeypatch, orientation):
        monkeypatch.setattr(vips, "_STRIP_PIXELS", 1)
        rgba = zoo.photo(53, 31, channels=4)
        data = zoo.saved(rgba, exif=zoo.exif_block(orientation))
        spooled = spool_in(io.BytesIO(data), tmp_path, max_pixels=MAX_PIXELS)
        assert_same(whole(spooled), decode(data, max_pixels=MAX_PIXELS))

    @pytest.mark.parametrize("depth", [8, 16])
    def test_any_rectangle_can_be_read(self, tmp_path, depth):
        image = zoo.photo(11, 7, channels=1 if depth == 16 else 4, depth=depth).reshape(11, 7, -1)
        spooled = spool_in(io.BytesIO(zoo.saved(image.squeeze())), tmp_path, max_pixels=MAX_PIXELS)
        for top, left in np.ndindex(11, 7):
            for bottom, right in np.ndindex(12, 8):
                if bottom < top or right < left:
                    continue
                window = Tile(top, left, bottom - top, right - left)
                wanted = image[top:bottom, left:right]
                np.testing.assert_array_equal(spooled.read(window), wanted[:, :, : spooled.channels])
                if spooled.alpha_path:
                    np.testing.assert_array_equal(spooled.read_alpha(window), wanted[:, :, 3])
        assert spooled.read(Tile(0, 0, 11, 7)).dtype == image.dtype

    @pytest.mark.parametrize(
        "window", [Tile(10, 0, 2, 7), Tile(0, 6, 1, 2), Tile(-1, 0, 2, 7), Tile(0, -1, 1, 2)], ids=str
    )
    def test_a_rectangle_outside_is_refused(self, tmp_path, window):
        spooled = spool_in(io.BytesIO(zoo.saved(zoo.photo(11, 7, 4))), tmp_path, max_pixels=MAX_PIXELS)
        for read in (spooled.read, spooled.read_alpha):
            with pytest.raises(ValueError, match="outside the picture of 11 x 7"):
                read(window)

    def test_a_truncated_raw_file_is_refused(self, tmp_path):
        spooled = spool_in(io.BytesIO(zoo.saved(zoo.photo(11, 7))), tmp_path, max_pixels=MAX_PIXELS)
        with spooled.pixels_path.open("r+b") as file:
            file.truncate(11 * 7 * 3 - 1)
        assert spooled.read(Tile(10, 0, 1, 6)).shape == (1, 6, 3)
        for window in (Tile(10, 6, 1, 1), Tile(0, 0, 11, 7)):
            with pytest.raises(ValueError, match=r"pixels\.raw ends at byte 230"):
                spooled.read(window)

    def test_reading_a_missing_alpha_is_refused(self, tmp_path):
        spooled = spool_in(io.BytesIO(zoo.saved(zoo.photo(11, 7))), tmp_path, max_pixels=MAX_PIXELS)
        with pytest.raises(ValueError, match="has no alpha"):
            spooled.read_alpha(Tile(0, 0, 1, 1))

    def test_damage_is_refused_as_in_memory(self, tmp_path, monkeypatch):
        monkeypatch.setattr(vips, "_STRIP_PIXELS", 1)
        image = pyvips.Image.new_from_array(zoo.photo(200, 256)).copy(interpretation="srgb")
        tiles = {"tile": True, "tile_width": 64, "tile_height": 64}
        files = [zoo.saved(zoo.photo(200, 256), "JPEG", quality=95, restart_marker_rows=3)]
        for compression in ("lzw", "deflate", "jpeg"):
            files += [image.tiffsave_buffer(compression=compression, **layout) for layout in ({}, tiles)]
        refused = 0
        for data in files:
            for at in (0, *range(700, len(data) - 700, len(data) // 9)):
                bad = data[:at] + b"\xff\x00\x13" * 9 + data[at + 27 :] if at else data
                wanted = outcome(lambda bad=bad: decode(bad, max_pixels=MAX_PIXELS))
                got = outcome(
                    lambda bad=bad: whole(spool_in(io.BytesIO(bad), tmp_path, max_pixels=MAX_PIXELS))
                )
                if isinstance(wanted, Picture) and isinstance(got, Picture):
                    assert_same(got, wanted)
                else:
                    assert got == wanted
                    assert at
                    refused += 1
        assert refused > 30

    def test_a_full_disk_is_not_the_images_fault(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(spool.os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            spool_in(io.BytesIO(zoo.saved(zoo.photo())), tmp_path, max_pixels=MAX_PIXELS)
        assert not list(tmp_path.iterdir())


class TestSpoolWriter:
    @settings(max_examples=40)
    @given(
        st.tuples(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 3])),
        st.sampled_from([np.uint8, np.uint16]),
        st.booleans(),
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        st.sampled_from(["png", "tiff", "bmp", "webp"]),
    )
    def test_writing_from_disk_equals_encoding_in_memory(
        self, tmp_path_factory, shape, dtype, with_alpha, step, format
    ):
        rng = np.random.default_rng(shape[0])
        top = np.iinfo(dtype).max + 1
        alpha = rng.integers(0, top, shape[:2], dtype) if with_alpha else None
        image = Picture(rng.integers(0, top, shape, dtype), alpha, b"", b"", "png", ())
        path, notes = write(image, tmp_path_factory.mktemp("out"), format, 100, step)
        data, wanted_notes = encode(image, format, quality=100)
        assert notes == wanted_notes
        assert_same(decode(path.read_bytes(), max_pixels=MAX_PIXELS), decode(data, max_pixels=MAX_PIXELS))
        if format in ("png", "tiff", "bmp"):
            assert path.read_bytes() == data

    @pytest.mark.parametrize("format", ["png", "tiff", "jpeg", "webp"])
    def test_profile_and_exif_survive(self, tmp_path, format):
        block = exif.upright(exif.bare(zoo.exif_block(6)))
        image = Picture(zoo.photo(60, 80), None, zoo.rgb_profile(), block, "jpeg", ())
        path, notes = write(image, tmp_path, format, 90)
        got, wanted = path.read_bytes(), encode(image, format, quality=90)[0]
        assert notes == ()
        assert_same(decode(got, max_pixels=MAX_PIXELS), decode(wanted, max_pixels=MAX_PIXELS))
        carried = decode(got, max_pixels=MAX_PIXELS).exif
        if format == "tiff":
            # The tags are read back into a new block.
            assert b"A. Nobody" in carried
            assert b"maker note" in carried
        else:
            assert carried == exif.resized(block, 60, 80)
        assert [file.name for file in tmp_path.iterdir()] == [path.name]

    @pytest.mark.parametrize("quality", [60, 90, 100])
    def test_jpeg_has_the_same_pixels_as_pillows(self, tmp_path, quality):
        image = Picture(zoo.photo(61, 83), None, b"", b"", "jpeg", ())
        path, _ = write(image, tmp_path, "jpeg", quality)
        got = decode(path.read_bytes(), max_pixels=MAX_PIXELS)
        wanted = decode(encode(image, "jpeg", quality=quality)[0], max_pixels=MAX_PIXELS)
        np.testing.assert_array_equal(got.pixels, wanted.pixels)

    def test_webp_with_alpha_and_metadata(self, tmp_path):
        rgba = zoo.photo(30, 41, channels=4)
        block = exif.bare(zoo.exif_block())
        image = Picture(rgba[..., :3].copy(), rgba[..., 3].copy(), zoo.rgb_profile(), block, "webp", ())
        path, _ = write(image, tmp_path, "webp", 100)
        got = decode(path.read_bytes(), max_pixels=MAX_PIXELS)
        np.testing.assert_array_equal(np.dstack([got.pixels, got.alpha]), rgba)
        assert got.icc == image.icc

    def test_an_image_too_wide_for_its_format_is_refused_as_in_memory(self, tmp_path):
        writer = SpoolWriter(tmp_path, 1, 16_384, 3, np.uint8, False)
        writer.put(0, 0, np.zeros((1, 16_384, 3), np.uint8))
        with pytest.raises(ImageError) as caught:
            writer.finish("webp", 90, Carry(b"", b"", "png", 3))
        assert caught.value.reason == "no_space_in_format"
        assert not list(tmp_path.iterdir())

    def test_pixels_of_another_form_are_refused(self, tmp_path):
        plain = SpoolWriter(tmp_path, 4, 6, 3, np.uint8, False)
        with_alpha = SpoolWriter(tmp_path, 4, 6, 3, np.uint8, True)
        colours, cover = np.zeros((2, 6, 3), np.uint8), np.zeros((2, 6), np.uint8)
        for writer, *planes in [
            (plain, colours.astype(np.uint16)),
            (plain, colours[:, :, :1]),
            (plain, colours[:, :, 0]),
            (plain, colours, cover),
            (plain, colours[:, :, :2], cover),
            (with_alpha, colours),
            (with_alpha, np.dstack([colours, cover])),
            (with_alpha, colours, cover.astype(np.uint16)),
        ]:
            with pytest.raises(ValueError, match="announced"):
                writer.put(0, 0, *planes)
        # The message is numpy's.
        with pytest.raises(ValueError, match="must match"):
            with_alpha.put(0, 0, colours, cover[:1])

    @pytest.mark.parametrize(("top", "left"), [(3, 0), (-1, 0), (0, 1), (0, -1)])
    def test_pixels_outside_are_refused(self, tmp_path, top, left):
        writer = SpoolWriter(tmp_path, 4, 6, 3, np.uint8, False)
        with pytest.raises(ValueError, match=f"rows {top} to .* for an image of 4 x 6"):
            writer.put(top, left, np.zeros((2, 6, 3), np.uint8))

    @pytest.mark.parametrize(
        ("pieces", "message"),
        [
            ([], "0 pixels were put into row 0, which has 6"),
            ([(0, 0), (0, 3), (2, 0)], "3 pixels were put into row 2, which has 6"),
            ([(0, 0), (0, 3), (2, 0), (2, 3), (2, 3)], "9 pixels were put into row 2, which has 6"),
            ([(0, 0), (0, 3), (2, 0), (0, 0)], "9 pixels were put into row 0, which has 6"),
            ([(0, 0), (0, 0), (2, 0), (2, 3)], "6 pixels were put into column 0, which has 4"),
        ],
        ids=["none", "one missing", "one twice", "one twice, another missing", "beside itself"],
    )
    def test_every_pixel_must_be_written_once(self, tmp_path, pieces, message):
        writer = SpoolWriter(tmp_path, 4, 6, 3, np.uint8, False)
        for top, left in pieces:
            writer.put(top, left, np.zeros((2, 3, 3), np.uint8))
        with pytest.raises(ValueError, match=message):
            writer.finish("png", 90, Carry(b"", b"", "png", 3))
        assert not list(tmp_path.iterdir())

    def test_a_full_disk_is_not_the_images_fault(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        writer = SpoolWriter(tmp_path, 4, 6, 3, np.uint8, False)
        monkeypatch.setattr(spool.os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            writer.put(0, 0, np.zeros((2, 3, 3), np.uint8))

    def test_short_reads_and_writes_are_completed(self, tmp_path, monkeypatch):
        pwrite, preadv = os.pwrite, os.preadv
        monkeypatch.setattr(spool.os, "pwrite", lambda file, data, at: pwrite(file, data[:5], at))
        monkeypatch.setattr(spool.os, "preadv", lambda file, views, at: preadv(file, [views[0][:5]], at))
        image = Picture(zoo.photo(13, 9, depth=16), None, b"", b"", "png", ())
        path, _ = write(image, tmp_path, "png", 100)
        assert path.read_bytes() == encode(image, "png", quality=100)[0]

    def test_64_bit_tiff(self, tmp_path, monkeypatch):
        monkeypatch.setattr("imgtx.codecs.tiff_writer._CLASSIC_BYTES", 100)
        image = Picture(
            zoo.photo(33, 21, depth=16), None, zoo.rgb_profile(), exif.bare(zoo.exif_block()), "tiff", ()
        )
        path, notes = write(image, tmp_path, "tiff", 90)
        got = decode(path.read_bytes(), max_pixels=MAX_PIXELS)
        assert path.read_bytes()[:4] == b"II+\0"
        assert notes == ("exif-dropped",)
        np.testing.assert_array_equal(got.pixels, image.pixels)
        assert got.icc == image.icc


_THROUGH = """
import re, sys
import numpy as np
from pathlib import Path
from imgtx.codecs import Carry
from imgtx.codecs.spool import SpoolWriter, spool_in
directory = Path(sys.argv[1])
writer = SpoolWriter(directory, 18000, 8000, 3, np.uint8, False)
for top in range(0, 18000, 100):
    for left in range(0, 8000, 1000):
        writer.put(top, left, np.full((100, 1000, 3), top % 251, np.uint8))
path = writer.finish(sys.argv[2], 90, Carry(b"", b"", "png", 3))
spool_in(path, directory, max_pixels=10**9)
# Not ru_maxrss: a child is born with its parent's.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.parametrize("format", ["jpeg", "png"])
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_432_megabytes_of_pixels_are_processed_in_less_memory(tmp_path, format):
    done = subprocess.run(
        [sys.executable, "-c", _THROUGH, str(tmp_path), format],
        # As in workers: libvips holds rows for each thread.
        env=os.environ | {"VIPS_CONCURRENCY": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    # Megabytes.
    assert int(done.stdout) < 400


def test_each_note_is_reported_once(tmp_path):
    image = Picture(zoo.photo(30, 20, channels=1, depth=16)[..., None], None, b"", b"", "png", ())
    _, notes = write(image, tmp_path, "webp", 90, step=(1, 1))
    assert notes == ("16bit->8bit", "grey->rgb")
    assert set(notes) <= NOTES.keys()
