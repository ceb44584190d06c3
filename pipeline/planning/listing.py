"""Keep the listing of a run on disk: each key once, with its output's name, by buckets of the key's hash."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.planning.collisions import NameCollisions
from pipeline.tables.hashing import hash64
from pipeline.tables.rows import blanks
from pipeline.tables.schemas import LISTED
from pipeline.tables.spill import Spill, buckets_for

# `row` counts what was listed; `hash` is the key's.
_NUMBERED = pa.schema([*LISTED, ("row", pa.int64()), ("hash", pa.uint64())])
NAMED = pa.schema([*_NUMBERED, ("output", pa.string())])


class Listing:
    """The listed rows of a run. Call `add` for all batches, then `settle`, then `read`.

    requested: as in `names.plain_names`.
    """

    def __init__(self, requested: str):
        self.names = NameCollisions(requested)
        self.buckets = 0
        self._rows = Spill(_NUMBERED)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a batch of LISTED, or of INVENTORY, where every key is an image."""
        table = pa.Table.from_batches([batch])
        absent = [name for name in LISTED.names if name not in table.column_names]
        for name, column in zip(absent, blanks(LISTED, absent, len(table)), strict=True):
            table = table.append_column(name, column)
        table = table.select(LISTED.names).cast(LISTED)
        hashes = hash64(table["key"])
        numbers = np.arange(self._rows.num_rows, self._rows.num_rows + len(table))
        self._rows.add(
            table.append_column("row", pa.array(numbers)).append_column("hash", pa.array(hashes)), hashes
        )
        images = pc.equal(table["status"], "").combine_chunks()
        self.names.add(table["key"].filter(images).combine_chunks(), hashes[np.asarray(images)])

    def reserve(self, keys: pa.Array, files: pa.Array) -> None:
        """Keep names free for keys that are not listed: those that they would have, and those of their `files`.

        keys: of images, each with the file that the ledger names for it, or "".
        """
        hashes = hash64(keys)
        self.names.add(keys, hashes)
        written = np.asarray(pc.not_equal(files, ""))
        self.names.add_names(files.filter(pa.array(written)), hashes[written])

    def settle(self, at_least: int) -> int:
        """Decide the names; return the number of buckets, a power of two and at least `at_least`."""
        self.buckets = max(at_least, buckets_for(self._rows.num_rows))
        self.names.settle(self._images, self.buckets)
        return self.buckets

    def read(self, index: int) -> pa.Table:
        """Return the NAMED rows of a bucket, one for each key, in listing order.

        `output` is "" for what is not an image.
        """
        rows = self._listed(index)
        images = pc.equal(rows["status"], "").combine_chunks()
        listed = rows.filter(images)
        names = self.names.names(
            listed["key"].combine_chunks(), listed["hash"].to_numpy(), (index, self.buckets)
        )
        return rows.append_column("output", pc.replace_with_mask(blank(len(rows)), images, names))

    def _images(self, index: int) -> tuple[pa.Array, np.ndarray]:
        rows = self._listed(index)
        rows = rows.filter(pc.equal(rows["status"], ""))
        return rows["key"].combine_chunks(), rows["hash"].to_numpy()

    def _listed(self, index: int) -> pa.Table:
        """Return the listed rows of a bucket; of a key that pages of a listing repeat, the last row."""
        rows = self._rows.read(index, self.buckets).sort_by("row")
        hashes = np.sort(rows["hash"].to_numpy())
        if (hashes[1:] != hashes[:-1]).all():
            return rows
        numbered = pa.table({"key": rows["key"], "place": np.arange(len(rows))})
        last = numbered.group_by("key").aggregate([("place", "max")])["place_max"]
        return rows.take(np.sort(last.to_numpy()))


def blank(count: int) -> pa.Array:
    """Return a column of empty strings."""
    return pa.repeat(pa.scalar(""), count)
