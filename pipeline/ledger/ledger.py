"""Record the outcome of every key as Parquet parts under `ledger/` of a destination.

The newest row of a key, by `sequence`, is its current state. Its newest `written` row names its file in `images/`,
even if a later attempt failed. Compaction keeps those two rows of each key. It writes larger parts first and deletes
the old ones last; if it is killed in between, some rows exist twice, which changes no result.

There is one writer at a time, the run that holds the lease. Readers need no lease: a part that vanishes while they
read was merged with others, and listing again finds its rows.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgtx.errors import StorageError
from pipeline.ledger.parts import Part, in_groups, list_parts, read_parts, write_part
from pipeline.storage.store import Store
from pipeline.tables.hashing import hash64
from pipeline.tables.schemas import FAILED, LEDGER, OUTCOME, PENDING, SKIPPED, WRITTEN
from pipeline.tables.spill import MAX_BUCKETS, Spill

# When appended parts are rewritten. A run appends small files, a few seconds' rows each; LOOSE_PARTS of them are merged
# into one. The whole ledger is divided into buckets again only when the appended parts exceed LOOSE_BYTES and
# LOOSE_SHARE of the rest. All bytes ever written thus stay a small multiple of the ledger's size: the few rows of a
# nightly run do not rewrite a billion.
LOOSE_PARTS = 256
LOOSE_BYTES, LOOSE_SHARE = 64 << 20, 0.25
# Larger parts are not merged again.
SMALL_BYTES = 4 << 20
# Of Parquet in one bucket: some 400,000 rows.
BUCKET_BYTES = 32 << 20

Answer = TypeVar("Answer")

_KEPT = (WRITTEN, SKIPPED, FAILED, PENDING)

# What is known of a key: its newest row, and as `written_*` its newest written row ("" and -1 where there is none).
STATE = pa.schema(
    [
        ("key", pa.string()),
        ("version", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("recipe", pa.string()),
        ("output", pa.string()),
        ("sequence", pa.int64()),
        ("written_output", pa.string()),
        ("written_sequence", pa.int64()),
    ]
)
_STATE_READS = STATE.names[:-2]


class Ledger:
    """The ledger of one destination.

    clock: nanoseconds since the epoch. It may run backwards between runs: sequences do not.
    """

    def __init__(self, store: Store, *, clock: Callable[[], int] = time.time_ns):
        self._store = store
        self._clock = clock
        self._last: int | None = None

    def append(
        self, rows: pa.Table, *, recipe: str, run: str, recipes: Mapping[str, str] | None = None
    ) -> int:
        """Append finished OUTCOME rows as one part, durable on return; return the last row's sequence.

        Of two rows of a key the later one wins. An empty table writes nothing. recipe: its digest. run: its id.
        recipes: the digests of rows by their `model`, where a run has chosen it for each; others get `recipe`. Raises
        ValueError for a row that is not finished, StorageError if the part was not written.
        """
        rows = rows.select(OUTCOME.names).cast(OUTCOME)
        unfinished = pc.invert(pc.is_in(rows["status"], pa.array(_KEPT)))
        if pc.any(unfinished).as_py():
            key = rows["key"].filter(unfinished)[0].as_py()
            raise ValueError(
                f"the row of key {key!r} is not finished: expected one of the statuses {', '.join(_KEPT)}"
            )
        if self._last is None:
            self._last = max((part.sequence for part in list_parts(self._store)), default=0)
        if rows.num_rows == 0:
            return self._last
        first = max(self._clock(), self._last + 1)
        count = rows.num_rows
        marks = [
            pa.array(
                [(recipes or {}).get(model, recipe) for model in rows["model"].to_pylist()], pa.string()
            ),
            pa.array([run], pa.string()).take(pa.array(np.zeros(count, np.int8))),
            pa.array(np.arange(first, first + count)),
        ]
        self._last = write_part(self._store, pa.table([*rows.columns, *marks], schema=LEDGER))
        return self._last

    def current(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the newest row of every key, oldest first, with these columns of LEDGER (all by default).

        Holds all rows of the ledger in memory; `current_by_bucket` holds one bucket at a time.
        """
        return next(self.current_by_bucket(1, columns))

    def current_by_bucket(self, buckets: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield `current` in `buckets` tables (a power of two); table i holds the keys whose `bucket_of` is i."""
        wanted = list(columns or LEDGER.names)
        for rows in self._rows_by_bucket(buckets, _with(wanted, "key", "sequence")):
            newest, _ = _newest(rows)
            yield rows.select(wanted).take(newest)

    def current_in_pieces(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield `current` in as many tables as this ledger needs to fit in memory."""
        return self.current_by_bucket(self.bucket_count(), columns)

    def state_by_bucket(self, buckets: int, also: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield the state of every key, one row each, in `buckets` tables as `current_by_bucket` does.

        Columns: those of STATE, then those of LEDGER named in `also`, from the newest row.
        """
        schema = pa.schema([*STATE, *_schema(also)])
        for rows in self._rows_by_bucket(buckets, [*_STATE_READS, *also]):
            newest, written = _newest(rows)
            file = rows.select(["output", "sequence"]).take(pa.array(written, mask=written < 0))
            known = {
                **dict(zip(rows.column_names, rows.take(newest).columns, strict=True)),
                "written_output": pc.fill_null(file["output"], ""),
                "written_sequence": pc.fill_null(file["sequence"], -1),
            }
            yield pa.table([known[name] for name in schema.names], schema=schema)

    def bucket_count(self) -> int:
        """Return the number of buckets that lets each fit in a few hundred megabytes of memory."""
        return _bucket_count(list_parts(self._store))

    def compact_if_due(self) -> bool:
        """Rewrite appended parts if there are many; return whether it did. For the writer, at the start of a run."""
        parts = list_parts(self._store)
        loose = [part for part in parts if not part.compacted]
        compacted = sum(part.size for part in parts if part.compacted)
        due = sum(part.size for part in loose) > max(LOOSE_BYTES, LOOSE_SHARE * compacted)
        if due or (len(_small(loose)) > LOOSE_PARTS and compacted <= LOOSE_BYTES):
            self.compact()
            return True
        return self.merge_if_due()

    def merge_if_due(self) -> bool:
        """Merge small parts into one if there are many; return whether it did. For the writer; takes seconds."""
        small = _small(list_parts(self._store))
        if len(small) <= LOOSE_PARTS:
            return False
        for group in in_groups(small, len(small)):
            self._replace(group, read_parts(self._store, group, LEDGER.names))
        return True

    def _replace(self, old: Sequence[Part], rows: Iterable[pa.Table]) -> None:
        """Write one part in place of several, without superseded rows, before these are deleted."""
        whole = pa.concat_tables(rows)
        write_part(self._store, whole.take(_worth_keeping(whole)))
        for part in old:
            self._store.delete(part.name)

    def compact(self) -> int:
        """Rewrite all parts into one for each bucket, without superseded rows; return how many were replaced.

        For the writer only. May be killed at any moment; the next compaction also removes what is left over.
        """
        old = list_parts(self._store)
        if _is_compact(old):
            return 0
        buckets = _bucket_count(old)
        for index, rows in enumerate(self._rows_by_bucket(buckets, LEDGER.names, old)):
            kept = _worth_keeping(rows)
            if len(kept):
                write_part(self._store, rows.take(kept), (index, buckets))
        for part in old:
            self._store.delete(part.name)
        return len(old)

    def _rows_by_bucket(
        self, buckets: int, columns: Sequence[str], parts: list[Part] | None = None
    ) -> Iterator[pa.Table]:
        """Yield all rows, superseded ones included, a table for each bucket."""
        if buckets == 1:
            yield self._read_again(parts, lambda listed: _together(self._store, listed, columns))[1]
            return
        parts, spilled = self._read_again(parts, lambda listed: _spill(self._store, listed, buckets, columns))
        for index in range(buckets):
            whole = [part for part in parts if part.buckets >= buckets and part.bucket % buckets == index]
            yield pa.concat_tables([spilled.read(index, buckets), *read_parts(self._store, whole, columns)])

    def _read_again(
        self, parts: list[Part] | None, read: Callable[[list[Part]], Answer]
    ) -> tuple[list[Part], Answer]:
        """Return the parts and what `read` makes of them; list and read again if one vanishes meanwhile."""
        for attempt in range(1, 4):
            listed = list_parts(self._store) if parts is None else parts
            try:
                return listed, read(listed)
            except StorageError as error:
                if error.reason != "not_found" or attempt == 3:
                    raise
        raise AssertionError("the last attempt returns or raises")


def _together(store: Store, parts: list[Part], columns: Sequence[str]) -> pa.Table:
    return pa.concat_tables([_schema(columns).empty_table(), *read_parts(store, parts, columns)])


def _spill(store: Store, parts: list[Part], buckets: int, columns: Sequence[str]) -> Spill:
    """Sort the rows of those parts into buckets that were divided into fewer."""
    spilled = Spill(_schema(columns))
    for table in read_parts(store, [part for part in parts if part.buckets < buckets], columns):
        spilled.add(table, hash64(table["key"]))
    return spilled


def _worth_keeping(rows: pa.Table) -> np.ndarray:
    """Return row numbers of each key's newest row and of its newest written row."""
    newest, written = _newest(rows)
    return np.unique(np.concatenate([newest, written[written >= 0]]))


def _newest(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return row numbers of each key's newest row, and of its newest written row or -1; both (keys,).

    Keys are in the order of their newest row. Equal sequences are copies of one row, left by a compaction that was
    killed: either will do.
    """
    order = np.argsort(rows["sequence"].to_numpy(), kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    best = {"newest": rank}
    if "status" in rows.column_names:
        best["written"] = np.where(pc.equal(rows["status"], WRITTEN).to_numpy(zero_copy_only=False), rank, -1)
    grouped = (
        pa.table({"key": rows["key"], **{name: pa.array(ranks) for name, ranks in best.items()}})
        .group_by("key")
        .aggregate([(name, "max") for name in best])
        .sort_by("newest_max")
    )
    newest = order[grouped["newest_max"].to_numpy()]
    if "written" not in best:
        return newest, np.full(len(newest), -1)
    written = grouped["written_max"].to_numpy()
    return newest, np.where(written < 0, -1, order[written])


def _small(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if not part.compacted and part.size <= SMALL_BYTES]


def _is_compact(parts: Sequence[Part]) -> bool:
    counts, buckets = {part.buckets for part in parts}, {part.bucket for part in parts}
    return len(counts) <= 1 and len(buckets) == len(parts) and all(part.compacted for part in parts)


def _bucket_count(parts: Sequence[Part]) -> int:
    wanted = -(-sum(part.size for part in parts) // BUCKET_BYTES)
    return min(MAX_BUCKETS, 1 << max(0, wanted - 1).bit_length())


def _schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([LEDGER.field(name) for name in columns])


def _with(columns: Sequence[str], *needed: str) -> list[str]:
    return [*columns, *(name for name in needed if name not in columns)]
