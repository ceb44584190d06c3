"""Every form of PNG decodes to the samples that were written."""

import struct
import zlib

import numpy as np
import pytest

from imgtx.codecs import decode
from imgtx.errors import ImageError
from tests.support import zoo
from tests.support.pictures import MAX_PIXELS, assert_equal, picture


def raw_png(samples: np.ndarray, colour: int, depth: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """Return a PNG of unchanged `samples` (height, width, bands), with `chunks` before its data."""
    height, width = samples.shape[:2]
    origins = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    passes = [samples[y::down, x::across] for y, x, down, across in origins] if interlaced else [samples]
    body = b""
    for rows in (rows for part in passes if part.size for rows in part):
        if depth == 16:
            line = rows.astype(">u2").tobytes()
        else:
            bits = np.unpackbits(rows.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
            line = np.packbits(bits).tobytes()
        body += b"\0" + line
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + zoo.png_chunk(b"IHDR", header)
        + b"".join(chunks)
        + zoo.png_chunk(b"IDAT", zlib.compress(body))
        + zoo.png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("interlaced", [False, True])
class TestPngForms:
    """PNG forms in a size that no pass of Adam7 divides."""

    def check(self, data: bytes, pixels: np.ndarray, alpha: np.ndarray | None) -> None:
        assert_equal(decode(data, max_pixels=MAX_PIXELS), picture(pixels, alpha))

    @pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
    def test_grey_with_and_without_a_transparent_value(self, interlaced, depth):
        dtype = np.uint16 if depth == 16 else np.uint8
        values = np.random.default_rng(depth).integers(0, 2**depth, (13, 11, 1)).astype(dtype)
        top = np.iinfo(dtype).max
        wanted = values * dtype(top // (2**depth - 1))
        self.check(raw_png(values, 0, depth, interlaced=interlaced), wanted, None)
        key = int(values[3, 4, 0])
        chunk = zoo.png_chunk(b"tRNS", struct.pack(">H", key))
        alpha = np.where(values[:, :, 0] == key, dtype(0), dtype(top))
        self.check(raw_png(values, 0, depth, chunk, interlaced=interlaced), wanted, alpha)

    @pytest.mark.parametrize("depth", [1, 2, 4, 8])
    @pytest.mark.parametrize("grey", [False, True])
    def test_palette_with_and_without_alpha(self, interlaced, depth, grey):
        rng = np.random.default_rng(depth)
        values = rng.integers(0, 2**depth, (13, 11, 1)).astype(np.uint8)
        colours = rng.integers(0, 256, (2**depth, 3)).astype(np.uint8)
        if grey:
            colours[:] = colours[:, :1]
        plte = zoo.png_chunk(b"PLTE", colours.tobytes())
        wanted = colours[values[:, :, 0]]
        self.check(raw_png(values, 3, depth, plte, interlaced=interlaced), wanted, None)
        cover = rng.integers(0, 256, 2**depth).astype(np.uint8)
        # The chunk omits the last entry, which is opaque then.
        cover[-1] = 255
        trns = zoo.png_chunk(b"tRNS", cover[:-1].tobytes())
        data = raw_png(values, 3, depth, plte, trns, interlaced=interlaced)
        self.check(data, wanted, cover[values[:, :, 0]])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_colour_with_a_transparent_value_or_alpha(self, interlaced, dtype):
        depth, top = np.dtype(dtype).itemsize * 8, np.iinfo(dtype).max
        values = np.random.default_rng(1).integers(0, top + 1, (13, 11, 4)).astype(dtype)
        rgb, alpha = values[..., :3], values[..., 3]
        self.check(raw_png(rgb, 2, depth, interlaced=interlaced), rgb, None)
        trns = zoo.png_chunk(b"tRNS", struct.pack(">HHH", *map(int, rgb[2, 5])))
        key = np.where((rgb == rgb[2, 5]).all(-1), dtype(0), dtype(top))
        self.check(raw_png(rgb, 2, depth, trns, interlaced=interlaced), rgb, key)
        self.check(raw_png(values, 6, depth, interlaced=interlaced), rgb, alpha)
        self.check(raw_png(values[..., 2:], 4, depth, interlaced=interlaced), values[..., 2:3], alpha)

    def test_a_transparent_value_that_decoders_skip_is_not_alpha(self, interlaced):
        rgb = zoo.photo(13, 11)
        early = raw_png(rgb, 2, 8, zoo.png_chunk(b"tRNS", b"\0"), interlaced=interlaced)
        late = raw_png(rgb, 2, 8, interlaced=interlaced)
        for data in (early, late[:-12] + zoo.png_chunk(b"tRNS", bytes(6)) + late[-12:]):
            got = decode(data, max_pixels=MAX_PIXELS)
            assert_equal(got, picture(rgb))
            assert got.notes == ("chunks-dropped",)


@pytest.mark.parametrize(
    ("colour", "chunk", "reason", "message"),
    [
        (3, b"", "corrupt", "a PNG of palette colours without its palette"),
        (6, zoo.png_chunk(b"CgBI", b"\x50\0\x20\2"), "unsupported", "CgBI"),
    ],
)
def test_pngs_that_no_decoder_takes_are_refused_by_name(colour, chunk, reason, message):
    samples = np.zeros((4, 5, 4 if colour == 6 else 1), np.uint8)
    with pytest.raises(ImageError, match=message) as caught:
        decode(raw_png(samples, colour, 8, chunk), max_pixels=MAX_PIXELS)
    assert caught.value.reason == reason
