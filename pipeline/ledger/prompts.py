"""Keep what a table of prompts says of each output: `ledger/prompts/<digest>.parquet`, beside the ledger.

One file for each content of a table and each way of reading it, written once. A ledger row and its row here have the
same `key` and `version`; `row` and `sample` count from 1, `conditions` is what the row asks for. All columns of the
table follow as they are, those of other kinds than numbers and text as JSON. Rows without an output of their own
(failed, or repeating others) are here, too.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources.prompt_rows import Pictures, Reading, rows_of
from pipeline.sources.prompts import PromptTable
from pipeline.sources.tabular import Broken, Line
from pipeline.storage.store import Store
from pipeline.tables.schemas import PROMPT_RECORDS

OWN = pa.schema(
    [
        ("key", pa.string()),
        ("version", pa.string()),
        ("row", pa.int64()),
        ("sample", pa.int32()),
        ("conditions", pa.string()),
    ]
)
BATCH_ROWS = 1 << 15


def keep_prompts(table: PromptTable, reading: Reading, images: Pictures | None, destination: Store) -> None:
    """Write what the table says, unless it has been written; for the holder of the lease.

    images: the start pictures that rows may name, of which those that they do name are known: the table was listed.
    """
    with table.file() as path:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        versions = sorted(images.known.items()) if images is not None else []
        said = json.dumps([content, astuple(reading), versions])
        name = f"{PROMPT_RECORDS}{hashlib.sha256(said.encode()).hexdigest()[:16]}.parquet"
        if destination.stat(name) is not None:
            return
        schema = _schema(table, path)
        with tempfile.TemporaryDirectory(prefix="imgtx-prompts-") as folder:
            written = Path(folder) / "prompts.parquet"
            with pq.ParquetWriter(written, schema, compression="zstd") as writer:
                for batch in _batches(table.rows(path, None), reading, images, schema):
                    writer.write_batch(batch)
            destination.upload(name, str(written))


def _schema(table: PromptTable, path: Path) -> pa.Schema:
    """Return the columns of the record: OWN, and those of the table under their names, or `table.<name>`."""
    there = table.columns(path)
    if there is None:
        names = dict.fromkeys(
            name for line in table.rows(path, None) if isinstance(line, dict) for name in line
        )
        there = dict.fromkeys(names)
    columns = [(_named(name), _kept_type(kind)) for name, kind in there.items()]
    return pa.schema([*OWN, *columns])


def _named(column: str) -> str:
    return f"table.{column}" if column in OWN.names else column


def _kept_type(kind: pa.DataType | None) -> pa.DataType:
    """Return the type that a column is kept in: its own for numbers, times and truth values, else text."""
    if kind is None or not pa.types.is_primitive(kind):
        return pa.string()
    return kind


def _batches(
    lines: Iterator[Line], reading: Reading, images: Pictures | None, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        cells = {} if isinstance(line, Broken) else {_named(name): cell for name, cell in line.items()}
        for sample, row in enumerate(rows_of(number, line, reading, images), 1):
            key, _, version, _, _, conditions, *_ = row
            own = {"key": key, "version": version, "row": number, "sample": sample, "conditions": conditions}
            rows.append(cells | own)
        if len(rows) >= BATCH_ROWS:
            yield _as_batch(rows, schema)
            rows = []
    if rows:
        yield _as_batch(rows, schema)


def _as_batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        [_as_text(row.get(field.name)) for row in rows]
        if pa.types.is_string(field.type)
        else [row.get(field.name) for row in rows]
        for field in schema
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _as_text(value: Any) -> str | None:
    """Return a cell as text: JSON for what is none, `?` for what is not UTF-8."""
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
