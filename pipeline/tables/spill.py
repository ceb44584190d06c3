"""Tables larger than memory, on local disk: sorted into buckets (`Spill`) or in order (`Rows`).

Small tables stay in memory. Larger ones go to compressed temporary files in the folder that `tempfile` chooses
(TMPDIR), and are read back in pieces. The files have no name, so that the end of the process, even by SIGKILL, frees
their space.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from imgtx.errors import UsageError

# Buckets that rows are sorted into; a reader may ask for any smaller power of two.
MAX_BUCKETS = 1024
# Rows in one bucket. They take about 1 kB each while they are compared, which bounds a plan's memory.
BUCKET_ROWS = 1 << 19
# Rows that wait in memory until they are sorted and written together.
HELD_BYTES = 64 << 20
_BATCH_ROWS = 1 << 14


def buckets_for(rows: int) -> int:
    """Return how many buckets, a power of two, keep each at about BUCKET_ROWS or fewer."""
    return min(MAX_BUCKETS, 1 << max(0, -(-rows // BUCKET_ROWS) - 1).bit_length())


class Spill:
    """Rows of one schema, read back one hash bucket at a time. All rows are added before the first read."""

    def __init__(self, schema: pa.Schema):
        self.num_rows = 0
        self._schema = schema
        self._held: list[tuple[pa.Table, np.ndarray]] = []
        self._held_bytes = 0
        # None until the rows are too many for memory.
        self._file: _Batches | None = None
        # For each sorted write: the number of each bucket's batch, -1 for a bucket without rows.
        self._places: list[np.ndarray] = []

    def add(self, rows: pa.Table, hashes: np.ndarray) -> None:
        """Add rows of the schema with their hashes, uint64 of shape (rows,), whose lowest bits are the bucket."""
        if not len(rows):
            return
        self.num_rows += len(rows)
        self._held.append((rows, hashes))
        self._held_bytes += rows.nbytes
        if self._held_bytes >= HELD_BYTES:
            self._write()

    def read(self, index: int, buckets: int) -> pa.Table:
        """Return bucket `index` of `buckets`, a power of two up to MAX_BUCKETS, in no particular order."""
        if self._file is None:
            kept = [
                table.filter(pa.array((hashes & np.uint64(buckets - 1)) == index))
                for table, hashes in self._held
            ]
            return pa.concat_tables([self._schema.empty_table(), *kept]).combine_chunks()
        if self._held:
            self._write()
        batches = [
            self._file.get(number)
            for places in self._places
            for number in places[index::buckets]
            if number >= 0
        ]
        return pa.Table.from_batches(batches, self._schema).combine_chunks()

    def _write(self) -> None:
        """Sort the rows in memory by bucket and write a batch for each bucket that has any."""
        if self._file is None:
            self._file = _Batches(self._schema)
        rows = pa.concat_tables([table for table, _ in self._held])
        bucket = np.concatenate([hashes for _, hashes in self._held]) & np.uint64(MAX_BUCKETS - 1)
        self._held, self._held_bytes = [], 0
        order = np.argsort(bucket, kind="stable")
        rows, edges = rows.take(order), np.searchsorted(bucket[order], np.arange(MAX_BUCKETS + 1))
        places = np.full(MAX_BUCKETS, -1)
        for index in np.flatnonzero(np.diff(edges)).tolist():
            places[index] = self._file.append(rows.slice(edges[index], edges[index + 1] - edges[index]))
        self._places.append(places)


class Rows:
    """Rows of one schema in the order in which they were added. All rows are added before the first read."""

    def __init__(self, schema: pa.Schema):
        self.num_rows = 0
        self.schema = schema
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._file: _Batches | None = None
        # The first row number of each batch in the file.
        self._starts: list[int] = []

    def add(self, rows: pa.Table) -> None:
        if not len(rows):
            return
        self._held.append(rows)
        self._held_bytes += rows.nbytes
        self.num_rows += len(rows)
        if self._held_bytes >= HELD_BYTES:
            self._write()

    def slice(self, offset: int = 0, length: int | None = None) -> pa.Table:
        """Return `length` rows from `offset`, or all that follow it, as a table in memory."""
        stop = self.num_rows if length is None else min(self.num_rows, offset + length)
        if self._file is None:
            return pa.concat_tables([self.schema.empty_table(), *self._held]).slice(
                offset, max(0, stop - offset)
            )
        if self._held:
            self._write()
        first = max(0, int(np.searchsorted(self._starts, offset, "right")) - 1)
        last = int(np.searchsorted(self._starts, stop, "left"))
        batches = [self._file.get(number) for number in range(first, last)]
        table = pa.Table.from_batches(batches, self.schema)
        return table.slice(offset - self._starts[first], max(0, stop - offset))

    def tables(self, most: int) -> Iterator[pa.Table]:
        """Yield all rows in tables of at most `most` rows."""
        for start in range(0, self.num_rows, most):
            yield self.slice(start, most)

    def _write(self) -> None:
        if self._file is None:
            self._file = _Batches(self.schema)
        start = self.num_rows - sum(map(len, self._held))
        rows = pa.concat_tables(self._held)
        for offset in range(0, len(rows), _BATCH_ROWS):
            self._file.append(rows.slice(offset, _BATCH_ROWS))
            self._starts.append(start + offset)
        self._held, self._held_bytes = [], 0


class _Batches:
    """Numbered batches in one unnamed temporary file. All are appended before the first is read."""

    def __init__(self, schema: pa.Schema):
        self._file = tempfile.TemporaryFile(prefix="imgtx-")  # noqa: SIM115 - lives as long as this object
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_file(pa.PythonFile(self._file, "w"), schema, options=options)
        self._reader: pa.ipc.RecordBatchFileReader | None = None
        self._count = 0

    def append(self, rows: pa.Table) -> int:
        """Write rows as one batch and return its number; raises UsageError where the disk is full."""
        (batch,) = rows.combine_chunks().to_batches()
        with _named_disk():
            self._writer.write_batch(batch)
        self._count += 1
        return self._count - 1

    def get(self, number: int) -> pa.RecordBatch:
        if self._reader is None:
            with _named_disk():
                self._writer.close()
                self._file.flush()
            self._reader = pa.ipc.open_file(pa.PythonFile(self._file, "r"))
        return self._reader.get_batch(number)


@contextmanager
def _named_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"temporary files cannot be written to {tempfile.gettempdir()} ({error.strerror or error}): "
            "a million listed images need some 200 MB there; free some space, or set TMPDIR to a folder on another disk"
        ) from error
