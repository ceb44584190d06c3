"""Read a table row by row: Parquet, CSV, JSON lines, or a text file of one value a line, in bounded memory.

Text may hold anything: bytes that are not UTF-8 come as lone surrogates, as Python's `surrogateescape` decodes them, so
that one bad cell costs one row. A line that is no row of its format comes as a `Broken`.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imgtx.errors import UsageError, first_line

ROWS = 8192
# Of one cell of a CSV file; a quote that nothing closes makes the rest of the file one cell.
MAX_CELL = 1 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Broken:
    """A line that is no row, and why."""

    why: str


# Cells by column; absent and None are both empty.
Values = dict[str, Any]
Line = Values | Broken
# The columns to read, all of them where None; columns with the type that a file states for each, if any.
Columns = list[str] | None
Types = dict[str, pa.DataType | None]


@dataclass(frozen=True)
class TableFormat:
    """How tables of some suffixes are read.

    columns: returns the names of a file's columns, each with its Arrow type where the file states one; None where each
    row names its own. rows: yields the rows from top to bottom with these columns, all of them where None is given.
    """

    suffixes: tuple[str, ...]
    columns: Callable[[Path], Types | None]
    rows: Callable[[Path, Columns], Iterator[Line]]


def _parquet_columns(path: Path) -> Types:
    with _parquet(path) as file:
        return {field.name: field.type for field in file.schema_arrow}


def _parquet_rows(path: Path, columns: Columns) -> Iterator[Line]:
    with _parquet(path) as file:
        try:
            for batch in file.iter_batches(ROWS, columns=columns, use_threads=False):
                names = batch.schema.names
                for cells in zip(*map(_cells, batch.columns), strict=True) if names else ():
                    yield dict(zip(names, cells, strict=True))
        except (pa.ArrowException, OSError) as error:
            raise UsageError(
                f"{path.name} is damaged ({first_line(error)}): write the table again"
            ) from error


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"{path.name} is not a complete Parquet file ({first_line(error)}): write the table again"
        ) from error


def _cells(column: pa.Array) -> Iterator[Any]:
    """Yield a column's cells; text through bytes, because Arrow refuses a whole column for one bad byte."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        for cell in column.cast(pa.large_binary()).to_pylist():
            yield None if cell is None else cell.decode("utf-8", "surrogateescape")
    else:
        yield from column.to_pylist()


def _csv_columns(path: Path) -> Types:
    _refuse_utf16(path)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = next(csv.reader(file, delimiter=_delimiter(path)), [])
    if len({*header}) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise UsageError(f"{path.name} has the column {twice[0]!r} twice: rename one")
    return dict.fromkeys(header)


def _csv_rows(path: Path, columns: Columns) -> Iterator[Line]:
    before = csv.field_size_limit(MAX_CELL)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=_delimiter(path))
            header = next(reader, [])
            places = [header.index(name) for name in columns] if columns is not None else range(len(header))
            names = [header[place] for place in places]
            for cells in reader:
                if len(cells) == len(header):
                    yield {name: cells[place] for name, place in zip(names, places, strict=True)}
                elif cells:
                    yield Broken(
                        f"has {len(cells)} cells where the header has {len(header)}: quote cells with commas"
                    )
    except csv.Error as error:
        raise UsageError(
            f"{path.name} is not valid CSV ({error}): look for a quote that is not closed"
        ) from error
    finally:
        csv.field_size_limit(before)


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _json_columns(path: Path) -> None:
    _refuse_utf16(path)


def _json_rows(path: Path, columns: Columns) -> Iterator[Line]:
    for line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Broken(f"is not JSON ({first_line(error)}): write one object a line")
            continue
        if not isinstance(row, dict):
            yield Broken('is not a JSON object: write {"prompt": "..."}')
        else:
            yield row if columns is None else {name: row.get(name) for name in columns}


def text_format(column: str) -> TableFormat:
    """Return the format of text files with one value of `column` on each line; blank lines count for nothing."""

    def columns_of(path: Path) -> Types:
        _refuse_utf16(path)
        return {column: None}

    def rows(path: Path, columns: Columns) -> Iterator[Line]:
        return ({column: line.strip()} for line in _lines(path) if line.strip())

    return TableFormat((".txt",), columns_of, rows)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        yield from file


def _refuse_utf16(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(2)
    if start in _UTF16:
        raise UsageError(f"{path.name} is UTF-16: save it as UTF-8")


PARQUET = TableFormat((".parquet", ".pq"), _parquet_columns, _parquet_rows)
CSV = TableFormat((".csv", ".tsv"), _csv_columns, _csv_rows)
JSON_LINES = TableFormat((".jsonl", ".ndjson"), _json_columns, _json_rows)
