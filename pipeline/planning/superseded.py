"""The files that the ledger's keys call theirs: which of them another key has taken, which a new name leaves behind.

One file for each key that was ever written, and one for each that is pending: a run that was cut short may have put it.
As names are (`pipeline.planning.collisions`), files are compared by the hash of their folded name, bucket by bucket of it.
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
        ("name", pa.uint64()),  # as all hashes
        ("key", pa.uint64()),
        ("sequence", pa.int64()),
        ("pending", pa.bool_()),
        ("listed", pa.bool_()),
    ]
)
_VERDICT = pa.schema(
    [("key", pa.uint64()), ("pending", pa.bool_()), ("taken", pa.bool_()), ("left", pa.bool_())]
)


class SupersededFiles:
    """First `add` the ledger's state, then `settle`, then ask."""

    def __init__(self) -> None:
        self._files = Spill(_FILE)
        self._verdicts = Spill(_VERDICT)
        self._buckets = 0

    def add(self, state: pa.Table, listed: np.ndarray) -> None:
        """Rows of `ledger.STATE`, and whether each one's key is listed still."""
        keys = hash64(state["key"])
        for name, sequence, there, pending in (
            (
                "written_output",
                "written_sequence",
                as_bools(pc.not_equal(state["written_output"], "")),
                False,
            ),
            ("output", "sequence", as_bools(pc.equal(state["status"], PENDING)), True),
        ):
            chosen = pa.array(there)
            names = hash64(fold(state[name].filter(chosen)))
            sequences = state[sequence].filter(chosen).to_numpy()
            columns = names, keys[there], sequences, np.full(len(names), pending), listed[there]
            self._files.add(pa.table([pa.array(column) for column in columns], schema=_FILE), names)

    def settle(self, names: NameCollisions, buckets: int) -> None:
        """Judge every file of a listed key. names: those of the listing."""
        self._buckets = buckets
        for index in range(buckets):
            files = self._files.read(index, buckets)
            if not len(files):
                continue
            name, listed = files["name"].to_numpy(), np.asarray(files["listed"])
            owned = _last_of_each(name, files["sequence"].to_numpy())
            left = owned & ~among(name, names.hashes(index, buckets))
            told = listed & (left | ~owned)
            verdicts = files.select(["key", "pending"]).filter(pa.array(told))
            for title, values in (("taken", ~owned[told]), ("left", left[told])):
                verdicts = verdicts.append_column(title, pa.array(values))
            self._verdicts.add(verdicts, verdicts["key"].to_numpy())

    def taken(self, keys: np.ndarray, index: int) -> np.ndarray:
        """Whether another key has written a file of its name since, of each key (a hash) of a bucket: bool (keys,)."""
        verdicts = self._verdicts.read(index, self._buckets)
        return among(keys, np.sort(verdicts["key"].to_numpy()[np.asarray(verdicts["taken"])]))

    def left(self, rows: pa.Table, keys: np.ndarray, index: int) -> pa.Array:
        """The file that each key of a bucket leaves behind under another name, "" where none: strings (keys,).

        rows: their `output`, `written_output` and `pending_output`. Never a file that another key has taken since, nor
        a name that this listing gives to any key. Of two, after a run that was cut short, the written one;
        `pipeline.verify` names the other.
        """
        verdicts = self._verdicts.read(index, self._buckets)
        key, left, pending = (np.asarray(verdicts[name]) for name in ("key", "left", "pending"))
        written = pa.array(among(keys, np.sort(key[left & ~pending])))
        cut_short = pa.array(among(keys, np.sort(key[left & pending])))
        names = pc.if_else(cut_short, rows["pending_output"], "")
        names = pc.if_else(written, rows["written_output"], names)
        return pc.if_else(pc.equal(names, rows["output"]), "", names)


def _last_of_each(hashes: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """Which entries have the highest sequence among those of their hash: bool (entries,)."""
    order = np.lexsort((sequences, hashes))
    last = np.ones(len(order), bool)
    last[order[:-1]] = hashes[order[1:]] != hashes[order[:-1]]
    return last
