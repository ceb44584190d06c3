"""Pictures as rows: what the writers of every format are given, whether the rows come from memory or from disk."""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from imgtx.codecs.metadata import NO_METADATA, Metadata
from imgtx.codecs.picture import Picture

# Bytes of the rows that are filtered and deflated together: they stay in the cache.
_STRIP_BYTES = 2**20


@dataclass(frozen=True)
class Raster:
    """The form of the rows that a file is written from, and its metadata.

    `bands` is 1 or 3, plus 1 with `alpha` (straight, the last band); `depth` is 8 or 16 bits. `icc` is a profile or
    b"", `exif` a bare block (`imgtx.codecs.metadata.exif.bare`) or b"", `texts` as in `Picture`,
    `colour` the PNG chunks of `imgtx.codecs.colour`. `metadata` is what the format can hold, as it is to be written.
    """

    height: int
    width: int
    bands: int
    depth: int
    alpha: bool
    icc: bytes = b""
    exif: bytes = b""
    texts: tuple[tuple[str, str], ...] = ()
    colour: bytes = b""
    metadata: Metadata = NO_METADATA

    @property
    def row_bytes(self) -> int:
        return self.width * self.bands * self.depth // 8

    @property
    def rows_per_strip(self) -> int:
        return max(1, min(self.height, _STRIP_BYTES // self.row_bytes))


def whole_picture(rows: Iterable[np.ndarray], raster: Raster, format: str) -> Picture:
    """Return a picture in memory made of its rows, for encoders that take nothing else."""
    stored = np.concatenate([*rows])
    colours = stored[:, :, : raster.bands - raster.alpha]
    alpha = stored[:, :, -1] if raster.alpha else None
    return Picture(colours, alpha, raster.icc, raster.exif, format, (), metadata=raster.metadata)


WriteRows = Callable[[BinaryIO, Iterable[np.ndarray], Raster], tuple[str, ...]]


def in_memory(write_rows: WriteRows) -> Callable[[Picture, int], tuple[bytes, tuple[str, ...]]]:
    """Make a `Writer.encode` of a function that writes rows to a seekable file."""

    def encode(picture: Picture, quality: int) -> tuple[bytes, tuple[str, ...]]:
        height, width, channels = picture.pixels.shape
        alpha = picture.alpha is not None
        depth = picture.pixels.itemsize * 8
        raster = Raster(
            height,
            width,
            channels + alpha,
            depth,
            alpha,
            picture.icc,
            picture.exif,
            picture.texts,
            picture.colour,
            picture.metadata,
        )
        out = io.BytesIO()
        notes = write_rows(out, _strips(picture, raster.rows_per_strip), raster)
        return out.getvalue(), notes

    return encode


def on_disk(write_rows: WriteRows) -> Callable[[Path, Iterable[np.ndarray], Raster, int], tuple[str, ...]]:
    """Make a `Writer.write` of a function that writes rows to a seekable file."""

    def write(path: Path, rows: Iterable[np.ndarray], raster: Raster, quality: int) -> tuple[str, ...]:
        with path.open("wb") as file:
            return write_rows(file, rows, raster)

    return write


def _strips(picture: Picture, count: int) -> Iterator[np.ndarray]:
    """Yield the picture in arrays (count or fewer, width, bands) with alpha as the last band."""
    for top in range(0, len(picture.pixels), count):
        rows = picture.pixels[top : top + count]
        if picture.alpha is None:
            yield rows
        else:
            yield np.concatenate([rows, picture.alpha[top : top + count, :, None]], axis=2)


def regroup(rows: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Yield the same rows in arrays of `count` rows each; the last may be shorter."""
    held: list[np.ndarray] = []
    height = 0
    for block in rows:
        held.append(block)
        height += len(block)
        if height >= count:
            joined = held[0] if len(held) == 1 else np.concatenate(held)
            whole = height - height % count
            for top in range(0, whole, count):
                yield joined[top : top + count]
            held, height = [joined[whole:]], height - whole
    if height:
        yield np.concatenate(held)


def to_bytes(strip: np.ndarray, order: str) -> np.ndarray:
    """(rows, width, bands) uint8 or uint16 -> (rows, bytes) uint8 in the byte order "<" or ">"."""
    wide = np.ascontiguousarray(strip, dtype=np.dtype(f"{order}u{strip.itemsize}"))
    return wide.view(np.uint8).reshape(len(strip), -1)
