"""Name, write and read the Parquet parts of a ledger, and report files that are not parts.

`ledger/<highest sequence>-<random>.parquet` was appended.
`ledger/<highest sequence>-<bucket>of<buckets>-<random>.parquet` was made by compaction and holds the keys of one bucket
of their hash. Names sort by time. Because of the random end two writers, one of which lost its lease, never write the
same name.
"""

import re
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from imgtx.errors import UsageError, first_line
from pipeline.storage.store import Store
from pipeline.tables.rows import blanks
from pipeline.tables.schemas import LEDGER, LEDGER_PARTS, PROMPT_RECORDS

_NAME = re.compile(r"ledger/(\d{20})-(?:(\d+)of(\d+)-)?[0-9a-f]{12}\.parquet")
_READERS = 8
# Of parts whose rows are in memory together: some 800,000 rows.
HELD_BYTES = 64 << 20
# Columns that ledgers from before 0.1 lack, and the older columns that they are made from.
ADDED = ("item", "inputs", "measures", "model", "quality")
_FORMERLY = {
    "item": (),
    "inputs": ("mask", "version"),
    "measures": ("hole_share", "noise_level"),
    "model": (),
    "quality": (),
}
# Columns of few values, for which a Parquet dictionary pays.
_REPETITIVE = ["status", "stage", "reason", "notes.list.element", "model", "recipe", "run"]


@dataclass(frozen=True)
class Part:
    """One file: its highest `sequence`, its `size` in bytes. An appended part is bucket 0 of 1."""

    name: str
    size: int
    sequence: int
    bucket: int
    buckets: int
    compacted: bool


def list_parts(store: Store) -> list[Part]:
    """Return the ledger's parts, oldest first; UsageError for a Parquet file that imgtx did not name."""
    parts = []
    for batch in store.list(LEDGER_PARTS):
        for name, size in zip(batch["key"].to_pylist(), batch["size"].to_pylist(), strict=True):
            if name.endswith(".parquet") and not name.startswith(PROMPT_RECORDS):
                parts.append(_part(name, size))
    return sorted(parts, key=lambda part: part.name)


def write_part(store: Store, rows: pa.Table, bucket: tuple[int, int] | None = None) -> int:
    """Write LEDGER rows as one new part; return its highest sequence.

    bucket: (index, buckets) if compaction makes it.
    """
    highest = pa.compute.max(rows["sequence"]).as_py()
    middle = "" if bucket is None else f"{bucket[0]:03d}of{bucket[1]:03d}-"
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", use_dictionary=_REPETITIVE, write_page_checksum=True)
    store.write(
        f"{LEDGER_PARTS}{highest:020d}-{middle}{uuid.uuid4().hex[:12]}.parquet", sink.getvalue().to_pybytes()
    )
    return highest


def read_parts(store: Store, parts: Sequence[Part], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield each part's rows with these columns, in the order of `parts`, reading a few parts ahead."""
    with ThreadPoolExecutor(_READERS) as pool:
        for together in in_groups(parts, 2 * _READERS):
            yield from pool.map(partial(_read_part, store, list(columns)), together)


def in_groups(parts: Sequence[Part], max_count: int) -> Iterator[list[Part]]:
    """Yield neighbouring parts, at most `max_count` and HELD_BYTES together; a larger part is a group by itself."""
    group: list[Part] = []
    for part in parts:
        if group and (len(group) == max_count or sum(other.size for other in group) + part.size > HELD_BYTES):
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _read_part(store: Store, columns: list[str], part: Part) -> pa.Table:
    data = store.read(part.name)
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            there = file.schema_arrow
            older = [name for name in ADDED if name not in there.names]
            wrong = [f.name for f in LEDGER if f not in there and f.name not in older]
            wanted = [name for name in columns if name not in older]
            formerly = {name for new in older if new in columns for name in _FORMERLY[new]}
            wanted += sorted(formerly & {*there.names} - {*wanted})
            rows = None if wrong else file.read(wanted, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"{part.name} ({len(data)} bytes) is not a complete Parquet file ({first_line(error)}), which every part "
            "of a ledger must be: restore it from a copy, or move it away and the next run does its images again"
        ) from error
    if rows is None:
        raise UsageError(
            f"{part.name} lacks the ledger's columns {', '.join(wrong)} or has them with another type; imgtx reads "
            "ledgers of its own version and of earlier ones: use the version that wrote it, or another destination"
        )
    return _upgraded(rows, older).select(columns)


def _upgraded(rows: pa.Table, added: Sequence[str]) -> pa.Table:
    """Add the columns that an older ledger lacks: its mask becomes an input, its numbers measures."""
    new = dict(zip(added, blanks(LEDGER, added, len(rows)), strict=True))
    if "inputs" in new and "mask" in rows.column_names:
        new["inputs"] = pa.array(
            [
                [{"role": "mask", "key": mask, "version": version.partition(" mask ")[2]}] if mask else []
                for mask, version in zip(rows["mask"].to_pylist(), rows["version"].to_pylist(), strict=True)
            ],
            LEDGER.field("inputs").type,
        )
    if "quality" in new:
        # Unknown, which no recipe of a run that chooses its models accepts.
        new["quality"] = pa.repeat(pa.scalar(-1, LEDGER.field("quality").type), len(rows))
    numbers = [name for name in _FORMERLY["measures"] if name in rows.column_names]
    if "measures" in new and numbers:
        values = rows.select(numbers).to_pylist()
        measures = [{name: value for name, value in row.items() if value} for row in values]
        new["measures"] = pa.array(measures, LEDGER.field("measures").type)
    for name, column in new.items():
        rows = rows.append_column(name, column)
    return rows


def _part(name: str, size: int) -> Part:
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(
            f"{name} is not a name of a ledger part; {LEDGER_PARTS} may hold only parts such as "
            f"{LEDGER_PARTS}{0:020d}-0123456789ab.parquet: move the file to another folder"
        )
    sequence, bucket, buckets = match.groups()
    return Part(name, size, int(sequence), int(bucket or 0), int(buckets or 1), bucket is not None)
