"""Read a list of keys: a text file, or the column `key` of a Parquet, CSV or JSON-lines table.

A text file has a key on each line, or between zero bytes as `find -print0` writes them. Keys are relative to the
source; a leading `./` and the source's own root are taken off. Kept on local disk where there are many; memory holds
eight bytes for each.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgtx.errors import StorageError, UsageError
from pipeline.sources.tabular import CSV, JSON_LINES, PARQUET, Broken, TableFormat
from pipeline.storage.objects import as_text
from pipeline.storage.store import Store, open_store
from pipeline.tables.hashing import among, hash64
from pipeline.tables.spill import Rows

COLUMN = "key"
ROWS = 1 << 16
_KEYS = pa.schema([("key", pa.string())])
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class KeyList:
    """The keys of a file. `uri` is the file's, `source` that of the source they are relative to."""

    uri: str
    source: str
    endpoint_url: str | None = None

    def check(self) -> None:
        """Raise UsageError if there is no such file, or it cannot be read as a list of keys."""
        _ = self._rows

    def __len__(self) -> int:
        return self._rows.num_rows

    def __bool__(self) -> bool:
        return True

    def batches(self, most: int = ROWS) -> Iterator[pa.Array]:
        """Yield the keys in the order of the file, in arrays of at most `most`."""
        for table in self._rows.tables(most):
            yield table["key"].combine_chunks()

    def has(self, keys: pa.Array) -> np.ndarray:
        """Return which of these keys are in the list: bool (keys,)."""
        return among(hash64(keys), self.hashes)

    @cached_property
    def hashes(self) -> np.ndarray:
        """The hashes of the keys, sorted, each once."""
        return np.unique(np.concatenate([np.zeros(0, np.uint64), *map(hash64, self.batches())]))

    @cached_property
    def _rows(self) -> Rows:
        rows = Rows(_KEYS)
        with self._file() as path:
            keys = _keys_in(path, f"--keys {self.uri}")
            while some := list(islice(keys, ROWS)):
                rows.add(pa.table([self._relative(pa.array(some, pa.string()))], schema=_KEYS))
        if not rows.num_rows:
            raise UsageError(
                f"--keys {self.uri} names no key: give a file with a key of the source on each line"
            )
        return rows

    def _relative(self, keys: pa.Array) -> pa.Array:
        for start in (f"{self.source.rstrip('/')}/", "./"):
            rest = pc.utf8_slice_codeunits(keys, len(start))
            keys = pc.if_else(pc.starts_with(keys, start), rest, keys)
        return keys

    @contextmanager
    def _file(self) -> Iterator[Path]:
        """Give the file as a local one: itself, or a copy that goes with the block."""
        store, name = self._place()
        try:
            there = store.stat(name) is not None
        except StorageError as error:
            raise UsageError(f"--keys {self.uri} cannot be read: {error}") from error
        if not there:
            raise UsageError(f"--keys {self.uri}: there is no such file; give a list of keys of the source")
        if store.is_local:
            yield Path(store.uri) / name
            return
        with tempfile.TemporaryDirectory(prefix="imgtx-keys-") as folder:
            path = Path(folder) / PurePosixPath(name).name
            store.download(name, str(path))
            yield path

    def _place(self) -> tuple[Store, str]:
        folder, slash, name = self.uri.rpartition("/")
        if not name:
            raise UsageError(
                f"--keys {self.uri} is a folder: give a file with a key of the source on each line"
            )
        return open_store(folder or slash or ".", endpoint_url=self.endpoint_url), name


def _keys_in(path: Path, option: str) -> Iterator[str]:
    suffix = path.suffix.lower()
    for table in (PARQUET, CSV, JSON_LINES):
        if suffix in table.suffixes:
            return _cells_in(path, table, option)
    return _lines_in(path, option)


def _cells_in(path: Path, table: TableFormat, option: str) -> Iterator[str]:
    columns = table.columns(path)
    if columns is not None and COLUMN not in columns:
        raise UsageError(
            f"{option} has no column {COLUMN!r}: it has {', '.join(columns) or 'none'}; name the column of keys so"
        )
    for number, line in enumerate(table.rows(path, [COLUMN]), 1):
        if isinstance(line, Broken):
            raise UsageError(f"{option}: row {number} {line.why}")
        key = _text_of(line.get(COLUMN))
        if key is None:
            raise UsageError(f"{option}: row {number} has {line[COLUMN]!r} as {COLUMN}: it must be text")
        if key:
            yield as_text(key)


def _text_of(cell: Any) -> str | None:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "surrogateescape")
    return "" if cell is None else cell if isinstance(cell, str) else None


def _lines_in(path: Path, option: str) -> Iterator[str]:
    """Yield what stands between the newlines of a file, or between its zero bytes if it has any."""
    with path.open("rb") as file:
        start = file.read(1 << 20)
        if start.startswith(_UTF16):
            raise UsageError(f"{option} is UTF-16: save it as UTF-8")
        end = b"\0" if b"\0" in start else b"\n"
        rest = start.removeprefix(_BOM)
        while rest:
            *whole, rest = rest.split(end)
            for line in whole:
                if key := _key_of(line, end):
                    yield key
            more = file.read(1 << 20)
            if not more:
                break
            rest += more
        if key := _key_of(rest, end):
            yield key


def _key_of(line: bytes, end: bytes) -> str:
    line = line.removesuffix(b"\r") if end == b"\n" else line
    return as_text(line.decode("utf-8", "surrogateescape"))
