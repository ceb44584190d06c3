"""libvips: decodes PNG, JPEG and TIFF in memory, these and WebP strip by strip, and encodes JPEG and WebP on disk.

Why not Pillow for these: it cuts 16 bit to 8, refuses PNGs for the length of their texts, and hides that a JPEG's
data are damaged. pyvips is imported at the first use.
"""

import gc
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from imgtx.codecs.convert import as_stated
from imgtx.codecs.metadata import NO_METADATA
from imgtx.codecs.picture import Header
from imgtx.codecs.rows import Raster
from imgtx.codecs.tiff_writer import write_plain_rows

# Pixels of the rows that are decoded together.
_STRIP_PIXELS = 2**22
# Rows that libvips decodes together at least.
_ROWS_AT_ONCE = 8

_ALONE = threading.Lock()
# Of libjpeg's warnings those that leave the pixels whole: odd versions and headers, bytes behind the last pixel. And
# libheif tries to seek beyond the end to find it.
_HARMLESS = re.compile(
    r"^VipsJpeg: (?!Corrupt JPEG data|Premature)|extraneous bytes before marker 0xd9$|^\s*source: bad seek to",
    re.IGNORECASE,
)


def library() -> ModuleType:
    """Import pyvips, without its cache of operations, which keeps pictures alive."""
    import pyvips

    pyvips.cache_set_max(0)
    return pyvips


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode a whole file: (height, width, bands) uint8 or uint16 as stored. Raises any exception of libvips."""
    with step() as vips:
        image = _opened(vips, data, header, "error")
        pixels = image.numpy().reshape(image.height, image.width, image.bands)
    return as_stated(pixels, header)


def strips(path: Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a file from top to bottom: (top, samples (rows, width, bands)). Raises any exception of libvips."""
    yield from _fetched(path, header, max(_ROWS_AT_ONCE, _STRIP_PIXELS // header.stored_size[1]))


def whole_rows(source: bytes | Path, header: Header) -> int:
    """Return how many rows of a damaged file can be decoded before the damage, up to some eight too few."""
    done = 0
    try:
        for top, samples in _fetched(source, header, _ROWS_AT_ONCE):
            done = top + len(samples)
    except Exception:
        # Which damage it is has been said before.
        return done
    return done


def recovered(source: bytes | Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode what can be of a damaged file, as `strips` does: where there are no pixels the decoder leaves its own."""
    yield from _fetched(
        source, header, max(_ROWS_AT_ONCE, _STRIP_PIXELS // header.stored_size[1]), lenient=True
    )


def _opened(vips: ModuleType, source: bytes | Path, header: Header, fail_on: str):
    options = {"access": "sequential", "fail_on": fail_on, **_which(header)}
    if isinstance(source, Path):
        return vips.Image.new_from_file(str(source), **options)
    return vips.Image.new_from_buffer(source, "", **options)


def _fetched(
    source: bytes | Path, header: Header, count: int, *, lenient: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (top, samples) of `count` rows at a time. lenient: go on after errors."""
    with step(lenient=lenient) as vips:
        image = _opened(vips, source, header, "none" if lenient else "error")
        region = vips.Region.new(image)
    height, width = header.stored_size
    expected = {"uchar": np.uint8, "ushort": np.uint16}.get(image.format)
    if (image.height, image.width) != (height, width) or np.dtype(expected).itemsize * 8 != header.depth:
        raise ValueError(
            f"{image.width} x {image.height} {image.format} against the header's {width} x {height}"
        )
    for top in range(0, height, count):
        rows = min(count, height - top)
        with step(lenient=lenient):
            pixels = np.frombuffer(region.fetch(0, top, width, rows), expected)
        yield top, pixels.reshape(rows, width, image.bands)


def through_profile(pixels: np.ndarray, icc: bytes) -> np.ndarray:
    """Convert (rows, width, 1 or 3) uint8 or uint16 to sRGB, (rows, width, 3) of the same dtype, perceptual intent.

    Raises any exception of libvips for a profile that it cannot use.
    """
    depth = pixels.itemsize * 8
    kind = {(1, 8): "b-w", (1, 16): "grey16", (3, 8): "srgb", (3, 16): "rgb16"}[pixels.shape[2], depth]
    with step() as vips:
        image = vips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation=kind)
        image.set_type(vips.GValue.blob_type, "icc-profile-data", icc)
        return image.icc_transform("srgb", embedded=True, intent="perceptual", depth=depth).numpy()


def _which(header: Header) -> dict[str, int]:
    """Return the options that name one of several pictures in a file; only TIFF has them."""
    options = {"page": header.page} if header.page else {}
    return options | {"subifd": header.sub} if header.sub >= 0 else options


@contextmanager
def image_of_rows(path: Path, rows: Iterable[np.ndarray], raster: Raster) -> Iterator:
    """Give a libvips image that reads 8-bit `rows` from a temporary file at `path`, without metadata.

    The file is an uncompressed TIFF: of the forms that libvips streams, the one it does not map into memory.
    """
    try:
        with path.open("wb") as file:
            write_plain_rows(file, rows, replace(raster, icc=b"", exif=b"", metadata=NO_METADATA))
        yield library().Image.tiffload(str(path), access="sequential")
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def step(*, lenient: bool = False) -> Iterator[ModuleType]:
    """Give libvips for one step of decoding, and raise damage that libvips only logs before it continues.

    lenient: do not raise it.

    It does so in tiles of TIFF and in JPEG even with `fail_on`. It has one error text for the whole process, so
    steps exclude one another and each begins by clearing it: else one picture's errors would be reported for the
    next.
    """
    vips = library()
    with _ALONE, _no_collection():
        vips.vips_lib.vips_error_clear()
        yield vips
        # This takes the text and clears it.
        logged = vips.Error("the decoder went on after an error")
        if not lenient and any(line and not _HARMLESS.search(line) for line in logged.detail.splitlines()):
            raise logged


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold off Python's garbage collector.

    pyvips logs libvips' warnings in libvips' own threads, and a collection that begins there and frees another
    picture aborts the process.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
