"""Pictures too large for memory: decoded to raw files on local disk, read and written in rectangles, encoded
streaming.

The rules are those of `imgtx.codecs.pixels`; only the road differs. libvips decodes top to bottom, every strip is
converted, turned and put in its final place on disk (`imgtx.codecs.raw`), so an EXIF rotation costs no memory either.

Bounded whatever the size: baseline JPEG, PNG and TIFF in strips or tiles. Formats that can only be decoded
whole take what they take: progressive JPEG (2 bytes a sample of coefficients), interlaced PNG, WebP (both
ways; its largest picture is 268 MP), BMP (which libvips does not read; at most 4 GB).
"""

import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from imgtx.codecs import exif
from imgtx.codecs.checksums import check_deflated, check_png
from imgtx.codecs.convert import Converter, oriented, reduced
from imgtx.codecs.header import examine
from imgtx.codecs.lossless import Raster, write_png, write_tiff
from imgtx.codecs.picture import Facts
from imgtx.codecs.pixels import (
    WEBP_METHOD,
    Carry,
    admit,
    check_output,
    decode,
    decoder_errors,
    output_metadata,
    vips,
    vips_step,
)
from imgtx.codecs.raw import read_window, write_window
from imgtx.errors import ImageError
from imgtx.imageops.geometry import Tile

_STRIP_PIXELS = 2**22  # rows decoded, converted or encoded together: about 4 MP
_ICC_PART = 65_519  # bytes of a profile in one JPEG segment


@dataclass(frozen=True)
class SpooledPicture:
    """An upright picture in raw files; the counterpart of `imgtx.codecs.pixels.Picture`.

    Rows of `pixels_path` are (width, channels), of `alpha_path` (width) in C order, native `dtype` (uint8,
    uint16).
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype
    pixels_path: Path
    alpha_path: Path | None
    carry: Carry
    notes: tuple[str, ...]

    def read(self, window: Tile) -> np.ndarray:
        """The pixels of a rectangle, (window.height, window.width, channels)."""
        return self._read(self.pixels_path, window, self.channels)

    def read_alpha(self, window: Tile) -> np.ndarray:
        """Its alpha, (window.height, window.width); only for a picture with an `alpha_path`."""
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


def spool_in(source: str | Path | BinaryIO, directory: str | Path, *, max_pixels: int) -> SpooledPicture:
    """Decode an encoded file into raw files in `directory` (which must exist and be this picture's own).

    A file object is copied to `directory` first. Raises `ImageError` as `imgtx.codecs.pixels.decode` does, for the
    same files.
    """
    directory = Path(directory)
    copied = directory / "source"
    if isinstance(source, str | Path):
        path = Path(source)
    else:
        path = copied
        with copied.open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
    try:
        with path.open("rb") as file:
            facts = examine(file)
        admit(facts, max_pixels)
        if facts.end > path.stat().st_size:
            raise ImageError(
                "truncated", f"the {facts.header.format} is shorter than the {facts.end} bytes it states"
            )
        if facts.header.format == "png":
            with path.open("rb") as file:
                check_png(file)
        return _decode_to_disk(path, directory, facts)
    finally:
        if path is copied:
            copied.unlink()


def _decode_to_disk(path: Path, directory: Path, facts: Facts) -> SpooledPicture:
    header = facts.header
    converter = Converter(facts)
    spooled = SpooledPicture(
        header.height,
        header.width,
        header.channels,
        np.dtype(np.uint16 if header.depth == 16 else np.uint8),
        directory / "pixels.raw",
        directory / "alpha.raw" if header.alpha else None,
        Carry(converter.icc, exif.upright(facts.exif), header.format),
        converter.notes,
    )
    pixels = _Plane(spooled.pixels_path, header.stored_size[0], header.orientation)
    alpha = (
        _Plane(spooled.alpha_path, header.stored_size[0], header.orientation) if spooled.alpha_path else None
    )
    try:
        for top, colours, cover in _converted_strips(path, facts, converter):
            pixels.put(top, colours)
            if alpha and cover is not None:
                alpha.put(top, cover)
    except BaseException:
        spooled.remove()
        raise
    finally:
        pixels.close()
        if alpha:
            alpha.close()
    return spooled


def _converted_strips(
    path: Path, facts: Facts, converter: Converter
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """(top, pixels, alpha) of the stored picture; a decoder's error is the image's, a full disk's is not."""
    with decoder_errors(facts.header.format):
        if facts.header.format == "bmp":
            whole = decode(path.read_bytes(), max_pixels=facts.header.height * facts.header.width)
            yield 0, whole.pixels, whole.alpha
            return
        for top, samples in _stored_strips(path, facts):
            yield top, *converter(samples)


def _stored_strips(path: Path, facts: Facts) -> Iterator[tuple[int, np.ndarray]]:
    """(top, samples (rows, width, bands)) as stored, top to bottom, straight from the decoder."""
    header = facts.header
    with path.open("rb") as file:
        check_deflated(file, facts)
    with vips_step() as library:
        image = library.Image.new_from_file(str(path), access="sequential", fail_on="error")
        region = library.Region.new(image)
    height, width = header.stored_size
    expected = {"uchar": np.uint8, "ushort": np.uint16}.get(image.format)
    if (image.height, image.width) != (height, width) or np.dtype(expected).itemsize * 8 != header.depth:
        raise ValueError(
            f"{image.width} x {image.height} {image.format} against the header's {width} x {height}"
        )
    count = max(8, _STRIP_PIXELS // width)
    for top in range(0, height, count):
        rows = min(count, height - top)
        with vips_step():
            samples = np.frombuffer(region.fetch(0, top, width, rows), expected)
        yield top, samples.reshape(rows, width, image.bands)


class _Plane:
    """A raw file that takes strips of the stored picture and lays them where they belong upright: turned by a
    quarter, stored rows are a block of columns."""

    def __init__(self, path: Path, stored_height: int, orientation: int):
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._stored_height = stored_height
        self._orientation = orientation

    def put(self, top: int, strip: np.ndarray) -> None:
        """Write the (rows, width, ...) that are stored from row `top` on."""
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

    `put(top, left, pixels, alpha)` until every pixel was put once, then `finish` once; `path` and `notes` tell
    the result. Raw pixels are deleted when the file is made. `dtype` is uint8 or uint16, `channels` 1 or 3.
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
        """Lay `pixels` (rows, columns, channels) and, where announced, `alpha` (rows, columns) at (top, left)."""
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

    def finish(self, format: str, quality: int, icc: bytes, exif: bytes) -> Path:
        """Encode the rows; the path of the file.

        Rules, notes (in `self.notes`) and refusals as `pixels.encode`.
        """
        self._raw.close()
        try:
            self._check_complete()
            check_output(format, self.height, self.width, quality)
            notes: list[str] = []
            shape = (self.height, self.width, self.channels)
            icc, exif = output_metadata(icc, exif, format, shape, notes)
            path = self._directory / f"output.{format}"
            if format in ("png", "tiff"):
                bands = self.channels + self.has_alpha
                raster = Raster(
                    self.height, self.width, bands, self.dtype.itemsize * 8, self.has_alpha, icc, exif
                )
                with path.open("wb") as file:
                    if format == "png":
                        write_png(file, self._strips(), raster)
                    else:
                        notes += write_tiff(file, self._strips(), raster)
            elif format == "bmp":
                _write_bmp(path, self._reduced_strips(format, notes), shape)
            else:
                _ENCODERS[format](path, self._bare(format, quality, notes), icc, exif)
            self.notes = tuple(notes)
            return path
        finally:
            self._raw_path.unlink(missing_ok=True)

    def _check_complete(self) -> None:
        """Every pixel put exactly once, as far as the counts tell: a piece left out for another shows in them."""
        for what, counts, full in [
            ("row", self._in_rows, self.width),
            ("column", self._in_columns, self.height),
        ]:
            if (counts != full).any():
                at = int((counts != full).argmax())
                raise ValueError(f"{counts[at]} pixels were put into {what} {at}, which has {full}")

    def _strips(self) -> Iterator[np.ndarray]:
        """(rows, width, bands), alpha as the last band."""
        row = (self.width, self.channels + self.has_alpha)
        count = max(1, _STRIP_PIXELS // self.width)
        for top in range(0, self.height, count):
            strip = Tile(top, 0, min(count, self.height - top), self.width)
            yield read_window(self._raw_path, strip, row, self.dtype)

    def _reduced_strips(self, format: str, notes: list[str]) -> Iterator[np.ndarray]:
        """The rows as an 8-bit format can hold them."""
        for strip in self._strips():
            alpha = strip[:, :, -1] if self.has_alpha else None
            pixels, alpha = reduced(strip[:, :, : self.channels], alpha, format, notes)
            yield pixels if alpha is None else np.dstack([pixels, alpha])

    def _bare(self, format: str, quality: int, notes: list[str]) -> Path:
        """A JPEG or WebP without metadata, by libvips, which would rewrite EXIF.

        It reads the rows from an uncompressed TIFF: of the forms it streams, the one it does not map into
        memory.
        """
        rows = self._directory / "rows.tif"
        bare = self._directory / "bare"
        alpha = self.has_alpha and format == "webp"
        bands = (self.channels if format == "jpeg" else 3) + alpha
        try:
            with rows.open("wb") as file:
                raster = Raster(self.height, self.width, bands, 8, alpha)
                write_tiff(file, self._reduced_strips(format, notes), raster, packed=False)
            image = vips().Image.tiffload(str(rows), access="sequential")
            if format == "jpeg":
                chroma = "off" if quality >= 90 else "on"
                image.jpegsave(str(bare), Q=quality, subsample_mode=chroma, keep="none")
            else:
                whole = quality == 100
                image.webpsave(
                    str(bare), Q=quality, lossless=whole, exact=whole, effort=WEBP_METHOD, keep="none"
                )
        finally:
            rows.unlink(missing_ok=True)
        return bare


def _write_jpeg(path: Path, bare: Path, icc: bytes, block: bytes) -> None:
    """Bare pixels with the metadata's segments laid before them, as they are."""
    with bare.open("rb") as encoded, path.open("wb") as file:
        file.write(encoded.read(2))
        file.write(_segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"))
        if block:
            file.write(_segment(0xE1, exif.PREFIX + block))
        parts = [icc[at : at + _ICC_PART] for at in range(0, len(icc), _ICC_PART)]
        for number, part in enumerate(parts, 1):
            file.write(_segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part))
        shutil.copyfileobj(encoded, file, 2**20)
    bare.unlink()


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _write_webp(path: Path, bare: Path, icc: bytes, block: bytes) -> None:
    """Bare pixels in a container with the metadata's chunks, as they are; without metadata, as it is."""
    if not icc and not block:
        bare.replace(path)
        return
    with bare.open("rb") as file:
        header = examine(file).header
        file.seek(12)
        extended = file.read(4) == b"VP8X"
    flags = 0x20 * bool(icc) | 0x10 * header.alpha | 0x08 * bool(block)
    sides = (header.width - 1).to_bytes(3, "little") + (header.height - 1).to_bytes(3, "little")
    with bare.open("rb") as encoded, path.open("wb") as file:
        encoded.seek(12 + 18 * extended)
        file.write(b"RIFF\0\0\0\0WEBP" + _riff(b"VP8X", bytes([flags, 0, 0, 0]) + sides))
        if icc:
            file.write(_riff(b"ICCP", icc))
        shutil.copyfileobj(encoded, file, 2**20)
        if block:
            file.write(_riff(b"EXIF", block))
        length = file.tell() - 8
        file.seek(4)
        file.write(struct.pack("<I", length))
    bare.unlink()


def _riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _write_bmp(path: Path, strips: Iterator[np.ndarray], shape: tuple[int, int, int]) -> None:
    """Rows of 24 bits in B, G, R or of 8 bits with a grey palette, bottom row first, as readers expect."""
    height, width, channels = shape
    stride = -(-width * channels // 4) * 4
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256)) if channels == 1 else b""
    start = 54 + len(palette)
    with path.open("wb") as file:
        file.write(struct.pack("<2sIII", b"BM", start + stride * height, 0, start))
        colours = len(palette) // 4
        file.write(
            struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8 * channels, 0, 0, 3780, 3780, colours, 0)
        )
        file.write(palette)
        at = start + stride * height
        for strip in strips:
            lines = strip[::-1, :, ::-1].reshape(len(strip), -1)
            at -= stride * len(strip)
            file.seek(at)
            file.write(np.pad(lines, ((0, 0), (0, stride - lines.shape[1]))).tobytes())


_ENCODERS = {"jpeg": _write_jpeg, "webp": _write_webp}
