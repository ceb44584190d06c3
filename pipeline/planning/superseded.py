"""Find, among the files that the ledger names, those that another key has reused and those that a new name orphans.

Each key that was ever written has one file, and each pending key another, which an interrupted run may have written.
Like names (`pipeline.planning.collisions`), files are compared by the hash of their folded name, bucket by bucket.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.planning.collisions import NameCollisions
from pipeline.planning.names import fold
from pipeline.tables.hashing import among, hash64
from pipeline.tables.rows import as_bools
from pipeline.tables.schemas import PENDING
from pipeline.tables.spill import Spill

_FILE = pa.schema(
    [
        # Hashes: of the folded name, of the key.
        ("name", pa.uint64()),
        ("key", pa.uint64()),
        ("sequence", pa.int64()),
        ("pending", pa.bool_()),
        ("listed", pa.bool_()),
    ]
)
_VERDICT = pa.schema(
    [("key", pa.uint64()), ("pending", pa.bool_()), ("reused", pa.bool_()), ("orphaned", pa.bool_())]
)


class SupersededFiles:
    """Files of the ledger's keys. Call `add` for its state, then `settle`, then `reused` and `orphaned`."""

    def __init__(self) -> None:
        self._files = Spill(_FILE)
        self._verdicts = Spill(_VERDICT)
        self._buckets = 0

    def add(self, state: pa.Table, listed: np.ndarray) -> None:
        """Add rows of `ledger.STATE`. listed: whether each row's key is still listed, bool (rows,)."""
        keys = hash64(state["key"])
        for name, sequence, has_file, pending in (
            (
                "written_output",
                "written_sequence",
                as_bools(pc.not_equal(state["written_output"], "")),
                False,
            ),
            ("output", "sequence", as_bools(pc.equal(state["status"], PENDING)), True),
        ):
            chosen = pa.array(has_file)
            names = hash64(fold(state[name].filter(chosen)))
            sequences = state[sequence].filter(chosen).to_numpy()
            columns = names, keys[has_file], sequences, np.full(len(names), pending), listed[has_file]
            self._files.add(pa.table([pa.array(column) for column in columns], schema=_FILE), names)

    def settle(self, names: NameCollisions, buckets: int) -> None:
        """Decide for every file of a listed key. names: those of the listing."""
        self._buckets = buckets
        for index in range(buckets):
            files = self._files.read(index, buckets)
            if not len(files):
                continue
            name, listed = files["name"].to_numpy(), np.asarray(files["listed"])
            owned = _last_of_each(name, files["sequence"].to_numpy())
            orphaned = owned & ~among(name, names.hashes(index, buckets))
            decided = listed & (orphaned | ~owned)
            verdicts = files.select(["key", "pending"]).filter(pa.array(decided))
            for title, values in (("reused", ~owned[decided]), ("orphaned", orphaned[decided])):
                verdicts = verdicts.append_column(title, pa.array(values))
            self._verdicts.add(verdicts, verdicts["key"].to_numpy())

    def reused(self, keys: np.ndarray, index: int) -> np.ndarray:
        """Return whether another key has since written a file of the same name: bool (keys,).

        keys: hashes of one bucket.
        """
        verdicts = self._verdicts.read(index, self._buckets)
        return among(keys, np.sort(verdicts["key"].to_numpy()[np.asarray(verdicts["reused"])]))

    def orphaned(self, rows: pa.Table, keys: np.ndarray, index: int) -> pa.Array:
        """Return the file that each key of a bucket leaves behind under another name, "" where none: strings (keys,).

        rows: their `output`, `written_output` and `pending_output`. Never returns a file that another key has reused,
        nor a name that this listing gives to any key. Where an interrupted run left two, returns the written one;
        `pipeline.verify` reports the other.
        """
        verdicts = self._verdicts.read(index, self._buckets)
        key, orphaned, pending = (np.asarray(verdicts[name]) for name in ("key", "orphaned", "pending"))
        written = pa.array(among(keys, np.sort(key[orphaned & ~pending])))
        interrupted = pa.array(among(keys, np.sort(key[orphaned & pending])))
        names = pc.if_else(interrupted, rows["pending_output"], "")
        names = pc.if_else(written, rows["written_output"], names)
        return pc.if_else(pc.equal(names, rows["output"]), "", names)


def _last_of_each(hashes: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """Return which entries have the highest sequence among those of their hash: bool (entries,)."""
    order = np.lexsort((sequences, hashes))
    last = np.ones(len(order), bool)
    last[order[:-1]] = hashes[order[1:]] != hashes[order[:-1]]
    return last
