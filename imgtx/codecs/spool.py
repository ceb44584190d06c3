"""Pictures too large for memory: decoded to raw files on local disk, read and written in rectangles, encoded streaming.

The rules are those of `imgtx.codecs.decode` and `encode`. libvips decodes top to bottom; every strip is converted,
turned and put in its final place on disk, so an EXIF rotation costs no memory either.

Memory is bounded at any size for baseline JPEG, and for PNG and TIFF in strips or tiles. Formats that can only
be decoded whole take what they take: progressive JPEG (2 bytes a sample of coefficients), interlaced PNG, WebP (both
ways; its largest picture is 268 MP), BMP (at most 4 GB).
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from imgtx.codecs import (
    FORMATS,
    admit,
    alone,
    completed,
    readable_facts,
    recovery,
    writer_for,
)
from imgtx.codecs.carried import output_metadata, upright_metadata
from imgtx.codecs.colour import Shown, shown_by
from imgtx.codecs.convert import Converter, oriented, reduced
from imgtx.codecs.format import Writer
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.metadata.provenance import Maker
from imgtx.codecs.picture import Carry, Facts, Header
from imgtx.codecs.refusals import decoder_errors
from imgtx.codecs.rows import Raster
from imgtx.errors import ImageError
from imgtx.imageops.geometry import Tile
from imgtx.imageops.grey import GreyTest
from imgtx.imageops.resize import resize_in_bands

# Pixels of the rows that are encoded together.
_STRIP_PIXELS = 2**22


@dataclass(frozen=True)
class SpooledPicture:
    """An upright picture in raw files; the counterpart of `imgtx.codecs.Picture`.

    Rows of `pixels_path` are (width, channels), of `alpha_path` (width) in C order, native `dtype` (uint8 or uint16).
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype
    pixels_path: Path
    alpha_path: Path | None
    carry: Carry
    notes: tuple[str, ...]
    # Three channels that are equal wherever the picture is visible (`imgtx.imageops.grey`).
    grey: bool = False
    # As in `Header`.
    quality: int = 100
    # As in `Picture`.
    missing: float = 0.0

    def read(self, window: Tile) -> np.ndarray:
        """Read the pixels of a rectangle: (window.height, window.width, channels)."""
        return self._read(self.pixels_path, window, self.channels)

    def read_alpha(self, window: Tile) -> np.ndarray:
        """Read its alpha: (window.height, window.width). Raises ValueError without an `alpha_path`."""
        if self.alpha_path is None:
            raise ValueError("this picture has no alpha; ask alpha_path before read_alpha")
        return self._read(self.alpha_path, window, 1)[:, :, 0]

    def _read(self, path: Path, window: Tile, samples: int) -> np.ndarray:
        if min(window.top, window.left) < 0 or window.bottom > self.height or window.right > self.width:
            raise ValueError(f"{window} reaches outside the picture of {self.height} x {self.width} pixels")
        return read_window(path, window, (self.width, samples), self.dtype)

    def remove(self) -> None:
        """Delete the raw files."""
        self.pixels_path.unlink(missing_ok=True)
        if self.alpha_path:
            self.alpha_path.unlink(missing_ok=True)


def spool_in(
    source: str | Path | BinaryIO, directory: str | Path, *, max_pixels: int, accept_damage: bool = False
) -> SpooledPicture:
    """Decode an encoded file into raw files in `directory`, which must exist and be this picture's own.

    A file object is copied to `directory` first, and so is a file that lacks its end. Raises `ImageError` as
    `imgtx.codecs.decode` does, for the same files; so does accept_damage.
    """
    directory = Path(directory)
    copied, rewritten = directory / "copy", directory / "rewritten"
    if isinstance(source, str | Path):
        path = Path(source)
    else:
        path = copied
        with copied.open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
    try:
        with path.open("rb") as file:
            facts = readable_facts(file, accept_damage=accept_damage)
        if facts.tail:
            path = _with_tail(path, copied, facts.tail)
        try:
            if FORMATS[facts.header.format].complete:
                admit(facts, path.stat().st_size, max_pixels)
                facts = completed(path.read_bytes(), facts)
            return _decode_to_disk(directory, facts, _checked_strips(path, facts, max_pixels, rewritten))
        except ImageError as error:
            if not accept_damage or error.reason != "truncated":
                raise
            with decoder_errors(facts.header.format):
                path, header = _decodable(path, facts, rewritten, lenient=True)
            found = recovery.assess(path, replace(facts, header=header), error)
            spooled = _decode_to_disk(directory, found.facts, recovery.strips(path, found.facts))
            return replace(spooled, missing=found.missing)
    finally:
        copied.unlink(missing_ok=True)
        rewritten.unlink(missing_ok=True)


def _decodable(path: Path, facts: Facts, rewritten: Path, *, lenient: bool = False) -> tuple[Path, Header]:
    """Do as `imgtx.codecs.decodable` for a file: the one that is `rewritten` has up to the size of the raw pixels."""
    format = FORMATS[facts.header.format]
    if not (facts.foreign and format.rewrite):
        return path, facts.header
    with path.open("rb") as source, rewritten.open("wb") as target:
        format.rewrite(source, target, lenient=lenient)
    return rewritten, alone(facts.header)


def _with_tail(path: Path, copied: Path, tail: bytes) -> Path:
    """Return the file at `copied`, a copy of the one at `path`, with the bytes that it lacked."""
    if path != copied:
        shutil.copyfile(path, copied)
    with copied.open("ab") as file:
        file.write(tail)
    return copied


def _checked_strips(
    path: Path, facts: Facts, max_pixels: int, rewritten: Path
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (top, samples) of the stored picture, once its header and checksums are accepted."""
    format = FORMATS[facts.header.format]
    admit(facts, path.stat().st_size, max_pixels)
    # A decoder's error is the image's, a full disk's is not.
    with decoder_errors(format.name, cut=facts.cut):
        with path.open("rb") as file:
            format.check(file, facts)
        yield from format.strips(*_decodable(path, facts, rewritten))


def _decode_to_disk(
    directory: Path, facts: Facts, strips: Iterator[tuple[int, np.ndarray]]
) -> SpooledPicture:
    header = facts.header
    converter = Converter(facts)
    block, metadata = upright_metadata(facts)
    spooled = SpooledPicture(
        header.height,
        header.width,
        header.channels,
        np.dtype(np.uint16 if header.depth == 16 else np.uint8),
        directory / "pixels.raw",
        directory / "alpha.raw" if header.alpha else None,
        Carry(
            converter.icc,
            block,
            header.format,
            header.channels,
            colour=converter.colour,
            metadata=metadata,
        ),
        converter.notes,
        quality=header.quality,
    )
    stored_height, _ = header.stored_size
    pixels = _Plane(spooled.pixels_path, stored_height, header.orientation)
    alpha = _Plane(spooled.alpha_path, stored_height, header.orientation) if spooled.alpha_path else None
    test = GreyTest()
    try:
        for top, samples in strips:
            with decoder_errors(header.format):
                colours, cover = converter(samples)
            pixels.put(top, colours)
            if alpha and cover is not None:
                alpha.put(top, cover)
            if header.channels == 3:
                test.add(colours, cover)
    except BaseException:
        spooled.remove()
        raise
    finally:
        pixels.close()
        if alpha:
            alpha.close()
    return replace(spooled, grey=header.channels == 3 and test.grey)


class _Plane:
    """A raw file that takes strips of the stored picture and writes them where they belong upright.

    Turned by a quarter, stored rows are a block of columns.
    """

    def __init__(self, path: Path, stored_height: int, orientation: int):
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._stored_height = stored_height
        self._orientation = orientation

    def put(self, top: int, strip: np.ndarray) -> None:
        """Write the pixels (rows, width, ...) that are stored from row `top` on."""
        rows = len(strip)
        placed = oriented(strip, self._orientation)
        backwards = self._orientation in (3, 4, 6, 7)
        first = self._stored_height - top - rows if backwards else top
        if self._orientation < 5:
            write_window(self._file, first, 0, placed, placed.shape[1])
        else:
            write_window(self._file, 0, first, placed, self._stored_height)

    def close(self) -> None:
        os.close(self._file)


class SpoolWriter:
    """Takes an image's rectangles in any order, keeps them on disk, and encodes them in bounded memory.

    Call `put(top, left, pixels, alpha)` until every pixel was put once, then `finish` once, which returns the path of
    the file and sets `notes`. The raw pixels are deleted then. `dtype` is uint8 or uint16, `channels` 1 or 3.
    """

    def __init__(self, directory: str | Path, height: int, width: int, channels: int, dtype, alpha: bool):
        self._directory = Path(directory)
        self.height, self.width, self.channels = height, width, channels
        self.dtype = np.dtype(dtype)
        self.has_alpha = alpha
        self.notes: tuple[str, ...] = ()
        self._raw_path = self._directory / "output.raw"
        self._raw = self._raw_path.open("wb", buffering=0)
        # How many pixels of each row and of each column were put.
        self._in_rows, self._in_columns = np.zeros(height, np.int64), np.zeros(width, np.int64)

    def put(self, top: int, left: int, pixels: np.ndarray, alpha: np.ndarray | None = None) -> None:
        """Write `pixels` (rows, columns, channels) and, if announced, `alpha` (rows, columns) at (top, left)."""
        if alpha is not None:
            pixels = np.concatenate([pixels, alpha[:, :, None]], axis=2)
        given = (pixels.shape[2:], pixels.dtype, alpha is not None)
        announced = ((self.channels + self.has_alpha,), self.dtype, self.has_alpha)
        if given != announced:
            raise ValueError(f"pixels of (samples, dtype, alpha) {given}; announced were {announced}")
        bottom, right = top + pixels.shape[0], left + pixels.shape[1]
        if not (0 <= top < bottom <= self.height and 0 <= left < right <= self.width):
            raise ValueError(
                f"rows {top} to {bottom}, columns {left} to {right} "
                f"for an image of {self.height} x {self.width}"
            )
        write_window(self._raw.fileno(), top, left, pixels, self.width)
        self._in_rows[top:bottom] += right - left
        self._in_columns[left:right] += bottom - top

    def resize(self, height: int, width: int) -> None:
        """Resize what was put, as `imresize` does, in bounded memory: after the last `put`, before `finish`."""
        self._raw.close()
        self._check_complete()
        whole = self._raw_path.rename(self._directory / "whole.raw")
        size, row = (self.height, self.width), (self.width, self.channels + self.has_alpha)

        def read(top: int, bottom: int) -> np.ndarray:
            return read_window(whole, Tile(top, 0, bottom - top, size[1]), row, self.dtype)

        try:
            with self._raw_path.open("wb", buffering=0) as self._raw:
                for top, rows in resize_in_bands(read, size, (height, width), pixels=_STRIP_PIXELS):
                    write_window(self._raw.fileno(), top, 0, rows, width)
        finally:
            whole.unlink()
        self.height, self.width = height, width
        self._in_rows, self._in_columns = np.full(height, width), np.full(width, height)

    def finish(self, format: str, quality: int, carry: Carry, maker: Maker | None = None) -> Path:
        """Encode the rows, with what a source carries beside its pixels, and return the path of the file.

        Rules, notes (in `self.notes`) and refusals are those of `imgtx.codecs.encode`.
        """
        self._raw.close()
        try:
            self._check_complete()
            writer = writer_for(format, self.height, self.width, quality)
            notes: list[str] = []
            shown = shown_by(writer, format, carry.icc, carry.colour, self.channels)
            notes += shown.notes
            block, metadata, lost = output_metadata(carry, writer, format, (self.height, self.width), maker)
            notes += lost
            path = self._directory / f"output.{format}"
            raster = self._raster(writer, shown, block, metadata)
            strips = self._reduced_strips(writer, shown, notes)
            more_notes = writer.write(path, strips, raster, quality)
            self.notes = (*notes, *more_notes)
            return path
        finally:
            self._raw_path.unlink(missing_ok=True)

    def _check_complete(self) -> None:
        """Check that every pixel was put once, as far as counts show: a piece left out for another shows in them."""
        for what, counts, full in [
            ("row", self._in_rows, self.width),
            ("column", self._in_columns, self.height),
        ]:
            if (counts != full).any():
                at = int((counts != full).argmax())
                raise ValueError(f"{counts[at]} pixels were put into {what} {at}, which has {full}")

    def _raster(self, writer: Writer, shown: Shown, exif: bytes, metadata: Metadata) -> Raster:
        """Return the form of the rows once `writer` can hold them."""
        alpha = self.has_alpha and writer.alpha
        bands = (self.channels if writer.grey else 3) + alpha
        depth = self.dtype.itemsize * 8 if writer.depth16 else 8
        return Raster(
            self.height,
            self.width,
            bands,
            depth,
            alpha,
            shown.icc,
            exif,
            colour=shown.chunks,
            metadata=metadata,
        )

    def _reduced_strips(self, writer: Writer, shown: Shown, notes: list[str]) -> Iterator[np.ndarray]:
        """Yield the rows as `writer` can hold them: (rows, width, bands), alpha as the last band."""
        row = (self.width, self.channels + self.has_alpha)
        count = max(1, _STRIP_PIXELS // self.width)
        for top in range(0, self.height, count):
            window = Tile(top, 0, min(count, self.height - top), self.width)
            strip = read_window(self._raw_path, window, row, self.dtype)
            alpha = strip[:, :, -1] if self.has_alpha else None
            pixels, alpha = reduced(strip[:, :, : self.channels], alpha, writer, shown.convert, notes)
            yield pixels if alpha is None else np.dstack([pixels, alpha])


def write_window(file: int, top: int, left: int, pixels: np.ndarray, width: int) -> None:
    """Write `pixels` (rows, columns, ...) at (top, left) of the raw file of a picture `width` pixels wide.

    A raw file is a picture's rows one after the other, each (width, samples), and nothing else. It is read and written
    plainly, never mapped, so that its pages do not count as the process's. A rectangle costs one call a row; whole rows
    go in one together.
    """
    pixels = np.ascontiguousarray(pixels)
    item = pixels.nbytes // (pixels.shape[0] * pixels.shape[1])
    runs = [pixels] if pixels.shape[1] == width else pixels
    for y, run in enumerate(runs):
        data, offset = run.data.cast("B"), ((top + y) * width + left) * item
        while data:
            written = os.pwrite(file, data, offset)
            data, offset = data[written:], offset + written


def read_window(path: Path, window: Tile, row: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Read (window.height, window.width, samples) from a raw file of rows (width, samples)."""
    width, samples = row
    pixels = np.empty((window.height, window.width, samples), dtype)
    runs = [pixels] if window.width == width else pixels
    with path.open("rb", buffering=0) as file:
        for y, run in enumerate(runs):
            view = run.reshape(-1).view(np.uint8).data
            offset = ((window.top + y) * width + window.left) * samples * dtype.itemsize
            while view:
                got = os.preadv(file.fileno(), [view], offset)
                if not got:
                    raise ValueError(f"{path.name} ends at byte {offset}, within {window}")
                view, offset = view[got:], offset + got
    return pixels
