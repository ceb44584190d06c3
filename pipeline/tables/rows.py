"""Convert rows between Arrow and Python, and exceptions into outcomes."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgtx.errors import ImageError, StorageError
from pipeline.tables.schemas import FAILED

log = logging.getLogger("imgtx.pipeline")

Row = dict[str, Any]

# The column that a stage's seconds are added to: downloads count as decoding, uploads as encoding.
CLOCKS = {
    "fetch": "seconds_decode",
    "decode": "seconds_decode",
    "transform": "seconds_transform",
    "encode": "seconds_encode",
    "publish": "seconds_encode",
}


def as_bools(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return an Arrow column of booleans as an array; null counts as false."""
    return np.asarray(pc.fill_null(values, False))


def counts_of(values: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value occurs in an Arrow column."""
    return {of["values"]: of["counts"] for of in pc.value_counts(values).to_pylist()}


def rows_of(batch: pa.Table) -> Iterator[Row]:
    """Yield each row as a dict of Python values; large binary columns as buffers that share the batch's memory."""
    columns = [
        _shared(batch[f.name])
        if pa.types.is_large_binary(f.type)
        else (value.as_py() for value in batch[f.name])
        for f in batch.schema
    ]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _shared(column: pa.ChunkedArray) -> Iterator[pa.Buffer]:
    """Yield each value as a slice of the column's memory: a scalar's own `as_buffer` copies it."""
    for chunk in column.chunks:
        if len(chunk):
            _, offsets, data = chunk.buffers()
            bounds = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            for start, stop in pairwise(bounds.tolist()):
                yield data.slice(start, stop - start) if stop > start else pa.py_buffer(b"")


def to_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Return rows as a table of exactly `schema`.

    Columns that it does not name are dropped, absent ones get their empty value.
    """
    columns = [_column([row.get(f.name, empty(f.type)) for row in rows], f.type) for f in schema]
    return pa.table(columns, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_large_binary(kind) or not values:
        return pa.array(values, kind)
    arrays = [_one_binary(value) for value in values]
    # `concat_arrays` copies even a single one.
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def _one_binary(value: Any) -> pa.Array:
    """Return an array of one value that shares the value's memory: pixels are copied once, by Ray."""
    buffer = value if isinstance(value, pa.Buffer) else pa.py_buffer(value)
    offsets = pa.py_buffer(np.array([0, buffer.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer])


def empty(kind: pa.DataType) -> Any:
    """Return the value of a column that a row lacks: never null, because Ray's block concatenation is strict."""
    if pa.types.is_string(kind):
        return ""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return b""
    if pa.types.is_fixed_size_list(kind):
        return [0] * kind.list_size
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        return []
    return False if pa.types.is_boolean(kind) else 0


def blanks(schema: pa.Schema, names: Sequence[str], count: int) -> list[pa.Array]:
    """Return columns of `count` empty values, of the types that `schema` gives them."""
    return [_blank(schema.field(name).type, count) for name in names]


def _blank(kind: pa.DataType, count: int) -> pa.Array:
    if not (pa.types.is_list(kind) or pa.types.is_map(kind)):
        return pa.repeat(pa.scalar(empty(kind), kind), count)
    # `pa.repeat` would concatenate `count` arrays.
    offsets = pa.py_buffer(np.zeros(count + 1, np.int32))
    return pa.Array.from_buffers(kind, count, [None, offsets], children=[pa.array([], kind.field(0).type)])


def run_stage(stage: str, row: Row, work: Callable[[Row], Row]) -> Row:
    """Return `work(row)` with its seconds added; an exception becomes a failed row with stage, reason and message.

    A row that already has a status passes through unchanged.
    """
    if row.get("status"):
        return row
    started = time.perf_counter()
    try:
        row = work(row)
    except (ImageError, StorageError) as error:
        row = failed(row, stage, error.reason, str(error))
    except MemoryError as error:
        row = failed(row, stage, "out_of_memory", f"not enough memory for this image: {error}")
    # A bug must cost one image, not the run; the row says which bug.
    except Exception as error:
        log.exception("bug at stage %s with key %r", stage, row.get("key"))
        row = failed(row, stage, "bug", f"{type(error).__name__}: {error}")
    spent = CLOCKS[stage]
    row[spent] = row.get(spent, 0.0) + time.perf_counter() - started
    return row


def failed(row: Row, stage: str, reason: str, message: str) -> Row:
    """Return the row as an outcome, failed at `stage` and without its pixels."""
    kept = {k: v for k, v in row.items() if not isinstance(v, (pa.Buffer, np.ndarray))}
    # Arrow takes no lone surrogates, which stand in messages of the system for bytes of names.
    message = message[:500].encode(errors="backslashreplace").decode()
    return kept | {"status": FAILED, "stage": stage, "reason": reason, "message": message}


def as_bytes(array: np.ndarray) -> pa.Buffer:
    """Return the array's bytes in C order, without a copy if it is in that order already."""
    return pa.py_buffer(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
