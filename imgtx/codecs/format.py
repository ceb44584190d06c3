"""What imgtx needs to know of a file format. Each format's file ends with one `Format`; `imgtx.codecs` lists them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from imgtx.codecs.metadata.density import Density
from imgtx.codecs.picture import Facts, Header, Picture
from imgtx.codecs.rows import Raster


class Rewrite(Protocol):
    """Writes a file that a format's decoder does not take as one that it does."""

    def __call__(self, source: BinaryIO, target: BinaryIO, *, lenient: bool) -> None: ...


def _nothing_to_check(file: BinaryIO, facts: Facts) -> None:
    """Check nothing: for formats without checksums and formats whose decoder checks them."""


def _any_size(height: int, width: int) -> bool:
    return True


def holds_none(value: object) -> bool:
    """Say that a format has no place for something."""
    return False


def holds_any(value: object) -> bool:
    """Say that a format has a place for something, whatever it is."""
    return True


@dataclass(frozen=True)
class Writer:
    """How a format is written, and what its files can hold.

    `encode(picture, quality)` returns the file's bytes and notes. `write(path, rows, raster, quality)` writes the
    same picture from rows, arrays (any number, width, raster.bands) from top to bottom, in bounded memory where
    the format allows it, and returns notes; it may put temporary files beside `path`. Both get pixels that the
    format can hold (`imgtx.codecs.convert.reduced`) and only metadata that it can carry.

    The largest side is `side_limit` pixels; `fits(height, width)` checks what else limits the size. `depth16`,
    `alpha` and `grey` say whether the format holds such pixels, `icc`, `colour_chunks` (those of PNG), `texts`, `iptc`,
    `exif_limit` (bytes), `holds_xmp` (of a packet, or of any if it is b"") and `holds_density` which metadata.
    `needs` is a module and the extra of imgtx that installs it.
    """

    encode: Callable[[Picture, int], tuple[bytes, tuple[str, ...]]]
    write: Callable[[Path, Iterable[np.ndarray], Raster, int], tuple[str, ...]]
    side_limit: int = 2**31 - 1
    fits: Callable[[int, int], bool] = _any_size
    depth16: bool = False
    alpha: bool = False
    grey: bool = False
    icc: bool = False
    colour_chunks: bool = False
    texts: bool = False
    exif_limit: int = 0
    needs: tuple[str, str] | None = None
    iptc: bool = False
    holds_xmp: Callable[[bytes], bool] = holds_none
    holds_density: Callable[[Density], bool] = holds_none


@dataclass(frozen=True)
class Format:
    """A file format: how it is recognised, read and checked, and its `writer` if imgtx can write it.

    `name` is used in specs and ledgers, `title` in messages. `suffixes` are lower case with their dot; outputs get
    the first. `reads` says in words what of it is read, for docs/files.md. `same` names the format that is written
    for `--format same`, if it is not this one; a format without a writer needs it.

    `recognise(start)` decides by the first 32 bytes; names are never asked. `read_facts(file)` reads the header of
    a seekable file without decoding or allocating by the stated size, so that a decompression bomb costs nothing.
    `check(file, facts)` finds damage that the decoder ignores. `complete(data, facts)` adds what cannot be read without
    decoding. `rewrite(source, target, lenient=...)` writes a file of `Facts.foreign` as one that the decoder takes,
    with one picture; lenient: what is damaged is missing there. `samples(data, header)` decodes a whole file in memory
    to (height, width, bands) uint8 or uint16 as stored, `strips(path, header)` a file on disk to (top, samples (rows,
    width, bands)) from top to bottom. Both raise any exception of the decoder.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    reads: str
    recognise: Callable[[bytes], bool]
    read_facts: Callable[[BinaryIO], Facts]
    samples: Callable[[bytes, Header], np.ndarray]
    strips: Callable[[Path, Header], Iterator[tuple[int, np.ndarray]]]
    check: Callable[[BinaryIO, Facts], None] = _nothing_to_check
    complete: Callable[[bytes, Facts], Facts] | None = None
    rewrite: Rewrite | None = None
    writer: Writer | None = None
    same: str = ""
