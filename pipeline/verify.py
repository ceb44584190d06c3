"""Check the outputs and the source against the ledger.

The ledger is read first, then destination and source are listed once. While no run is active, every difference is a
problem. During a run, files whose row is not yet written look like orphans.

Nothing is repaired here. `mark_pending` marks keys as pending, and the next run makes their outputs again under the
same names. Files that no row names, and outputs whose source is gone, are left to the user.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest
from io import BufferedReader, BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgtx.codecs import read_facts
from imgtx.errors import ImageError, StorageError
from pipeline.ledger.ledger import Ledger
from pipeline.planning.names import fold
from pipeline.planning.plan import source_keys
from pipeline.sources.selection import Selection
from pipeline.storage.store import Store
from pipeline.tables.hashing import hash64
from pipeline.tables.rows import as_bools, counts_of, to_table
from pipeline.tables.schemas import (
    EXCLUDED,
    HIDDEN,
    IDENTITY,
    IMAGES,
    NOT_FOUND,
    OUTCOME,
    PENDING,
    SKIPPED,
    SUFFIX,
    WRITTEN,
)

PROBLEMS = {
    "deleted": "a written output does not exist",
    "truncated": "an output has fewer bytes than were written",
    "swapped": "an output has other bytes than were written",
    "dimensions": "an output's header contradicts its row, or it has not the proportions of its input",
    "unreadable": "the storage cannot read the output",
    "doubled": "another key has since written a file of the same name",
    "orphan": "a file under images/ that no current row names",
    "no_row": "a source image without a row in the ledger",
    "changed": "a source image of another version than its row",
}
DAMAGED = ("deleted", "truncated", "swapped", "dimensions", "doubled")

# `redoable`: whether the source still has the key, so that a run can make its output again.
PROBLEM = pa.schema(
    [
        ("key", pa.string()),
        ("output", pa.string()),
        ("problem", pa.string()),
        ("message", pa.string()),
        ("redoable", pa.bool_()),
    ]
)
_FACTS = ("out_bytes", "out_sha256", "in_height", "in_width", "out_height", "out_width")

_READERS = 8
_ROWS_AT_ONCE = 4096
# In bytes; a larger output is read through a temporary file.
_IN_MEMORY = 32 << 20


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    problems: PROBLEM rows. counts: rows `written`, source images `listed`, keys `vanished`, outputs `read`, and each
    problem found, by its name in PROBLEMS.
    """

    problems: pa.Table
    counts: dict[str, int]

    def damaged_keys(self) -> list[str]:
        """Return the keys for `mark_pending`: their outputs are not what was written, and can be made again."""
        damaged = pc.and_(pc.is_in(self.problems["problem"], pa.array(DAMAGED)), self.problems["redoable"])
        return pc.unique(self.problems["key"].filter(damaged)).to_pylist()

    def to_dict(self) -> dict[str, Any]:
        return {"counts": self.counts, "problems": self.problems.to_pylist()}


def verify(
    listing: Iterable[pa.RecordBatch],
    destination: Store,
    ledger: Ledger,
    *,
    deep: bool = True,
    selection: Selection | None = None,
) -> VerifyReport:
    """Check every current written row, every file under `images/` and every listed row of the source.

    listing: batches of LISTED (`Task.list`), limited to `selection`. deep: also read each output and compare checksum
    and dimensions; without it only names and sizes are compared. Needs some 600 bytes of memory a key, and a few
    outputs of at most 32 MiB each. Raises UsageError if the ledger cannot be read, StorageError if source or
    destination cannot be listed.
    """
    also = (*_FACTS, "item")
    state = pa.concat_tables(ledger.state_by_bucket(ledger.bucket_count(), also)).combine_chunks()
    files = _files(destination)
    listed = _images(listing)
    state = state.append_column("redoable", pc.is_in(state["key"], listed["key"].combine_chunks()))

    written = state.filter(pc.equal(state["status"], WRITTEN))
    lost, written = _split(written, pc.is_in(written["key"], _overwritten(state)))
    size = files["size"].take(pc.index_in(written["output"], files["output"].combine_chunks()))
    sound = as_bools(pc.equal(size, written["out_bytes"]))
    whole = written.filter(pa.array(sound))
    found = [
        _doubled(lost),
        *_wrong_size(written.filter(pa.array(~sound)), size.filter(pa.array(~sound))),
        _wrong_scale(whole),
        *(_read_all(destination, whole) if deep else ()),
        _orphans(files, state),
        *_source_problems(listed, state),
    ]
    problems = pa.concat_tables([PROBLEM.empty_table(), *found])
    counts = {
        "written": len(written) + len(lost),
        "listed": len(listed),
        "vanished": _vanished(state, selection),
        "read": len(whole) if deep else 0,
    }
    named = counts_of(problems["problem"])
    return VerifyReport(problems, counts | {name: named[name] for name in PROBLEMS if name in named})


def _vanished(state: pa.Table, selection: Selection | None) -> int:
    """Return how many images of the ledger are no longer in the source, among those that a selection takes."""
    gone = state.filter(pc.and_(pc.invert(state["redoable"]), pc.not_equal(state["status"], SKIPPED)))
    return int(selection.takes(source_keys(gone)).sum()) if selection else len(gone)


def mark_pending(ledger: Ledger, keys: list[str]) -> int:
    """Mark keys of the ledger as pending, so that the next run makes their outputs again; return how many.

    Writes to the ledger, so the caller must hold the destination's lease. Keys without a row are ignored: a run
    processes them as new anyway.
    """
    wanted, marked = pa.array(keys, pa.string()), 0
    for rows in list(ledger.current_by_bucket(ledger.bucket_count(), [*IDENTITY.names, "output"])):
        rows = rows.filter(pc.is_in(rows["key"], wanted))
        if not len(rows):
            continue
        pending = [row | {"status": PENDING, "message": "marked by verify"} for row in rows.to_pylist()]
        ledger.append(to_table(pending, OUTCOME), recipe="", run="verify")
        marked += len(rows)
    return marked


def _files(destination: Store) -> pa.Table:
    """Return every file under `images/`: output and size."""
    tables = [pa.table({"output": pa.array([], pa.string()), "size": pa.array([], pa.int64())})]
    for batch in destination.list(IMAGES):
        output = pc.utf8_slice_codeunits(batch["key"], len(IMAGES))
        tables.append(pa.table({"output": output, "size": batch["size"]}))
    return pa.concat_tables(tables)


def _images(listing: Iterable[pa.RecordBatch]) -> pa.Table:
    """Return every image of the source, those refused by name included: key and version."""
    tables = [pa.table({"key": pa.array([], pa.string()), "version": pa.array([], pa.string())})]
    for batch in listing:
        known = pa.Table.from_batches([batch])
        others = pc.is_in(known["reason"], pa.array([SUFFIX, HIDDEN, EXCLUDED, NOT_FOUND]))
        tables.append(known.filter(pc.invert(others)).select(["key", "version"]))
    return pa.concat_tables(tables)


def _overwritten(state: pa.Table) -> pa.Array:
    """Return the keys whose file another key has since overwritten, under the same folded name."""
    rows = state.filter(pc.not_equal(state["written_output"], "")).sort_by("written_sequence")
    hashes = hash64(fold(rows["written_output"]))
    _, last = np.unique(hashes[::-1], return_index=True)
    overwritten = np.ones(len(rows), bool)
    overwritten[len(rows) - 1 - last] = False
    return rows["key"].filter(pa.array(overwritten)).combine_chunks()


def _doubled(lost: pa.Table) -> pa.Table:
    # No problem if the key has left the source: the listing then gives its name to another key.
    lost = lost.filter(lost["redoable"])
    return _problems(
        lost, "doubled", "another key has since written this file: run again, and both get their own"
    )


def _wrong_size(rows: pa.Table, size: pa.ChunkedArray) -> Iterator[pa.Table]:
    exists = as_bools(pc.is_valid(size))
    fewer = as_bools(pc.less(size, rows["out_bytes"]))
    yield _problems(rows.filter(pa.array(~exists)), "deleted", "the file does not exist")
    text = pc.binary_join_element_wise(
        "the file has",
        size.cast(pa.string()),
        "bytes,",
        rows["out_bytes"].cast(pa.string()),
        "were written",
        " ",
    )
    for problem, where in (("truncated", fewer), ("swapped", exists & ~fewer)):
        yield _problems(rows.filter(pa.array(where)), problem, text.filter(pa.array(where)))


def _wrong_scale(rows: pa.Table) -> pa.Table:
    """Report rows whose output has not the proportions of its input, to a pixel; rows without an input pass."""
    in_height, in_width, out_height, out_width = (
        rows[name].to_numpy().astype(np.int64)
        for name in ("in_height", "in_width", "out_height", "out_width")
    )
    known = (in_height > 0) & (in_width > 0)
    fits = (out_height >= in_height) & (out_width >= in_width)
    fits &= np.abs(out_height * in_width - out_width * in_height) <= in_height + in_width
    message = "the row's output has not the proportions of its input: report this as a bug, with the row"
    return _problems(rows.filter(pa.array(known & ~fits)), "dimensions", message)


def _orphans(files: pa.Table, state: pa.Table) -> pa.Table:
    """Report files that no written row names, except those of pending keys: the next run overwrites them."""
    current = pc.and_(
        pc.is_in(state["status"], pa.array([WRITTEN, PENDING])), pc.not_equal(state["written_output"], "")
    )
    named = state["written_output"].filter(current).combine_chunks()
    orphans = files["output"].filter(pc.invert(pc.is_in(files["output"], named)))
    place = pc.index_in(orphans, state["written_output"].combine_chunks())
    message = pc.if_else(
        pc.is_valid(place),
        "written by an earlier run of its key, whose newest attempt failed: keep it or delete it",
        "no row of the ledger names this file: delete it if it is not yours",
    )
    rows = pa.table({"key": pc.fill_null(state["key"].take(place), ""), "output": orphans})
    return _problems(rows.append_column("redoable", pa.repeat(False, len(rows))), "orphan", message)


def _source_problems(listed: pa.Table, state: pa.Table) -> Iterator[pa.Table]:
    known = state.select(["version", "output"]).take(
        pc.index_in(listed["key"], state["key"].combine_chunks())
    )
    rows = pa.table({"key": listed["key"], "output": pc.fill_null(known["output"], "")})
    rows = rows.append_column("redoable", pa.repeat(True, len(rows)))
    absent = pc.is_null(known["version"])
    changed = pc.fill_null(pc.not_equal(known["version"], listed["version"]), False)
    yield _problems(rows.filter(absent), "no_row", "the ledger has no row of this image: run again")
    yield _problems(rows.filter(changed), "changed", "the source changed after its row: run again")


def _read_all(destination: Store, rows: pa.Table) -> Iterator[pa.Table]:
    """Read each output and report those that differ; only a few thousand rows at a time are Python objects."""
    rows = rows.select(["key", "output", "redoable", *_FACTS])
    with ThreadPoolExecutor(_READERS) as pool:
        for batch in rows.to_batches(max_chunksize=_ROWS_AT_ONCE):
            found = [
                problem for problem in pool.map(partial(_read, destination), batch.to_pylist()) if problem
            ]
            yield pa.Table.from_pylist(found, PROBLEM)


def _read(destination: Store, row: dict[str, Any]) -> dict[str, Any] | None:
    """Read a row's output; return its PROBLEM or None."""
    name = IMAGES + row["output"]
    try:
        if row["out_bytes"] > _IN_MEMORY:
            with TemporaryDirectory(prefix="imgtx-verify-") as folder:
                path = Path(folder) / "output"
                destination.download(name, str(path))
                with path.open("rb") as file:
                    complaint = _complaint(file, row)
        else:
            complaint = _complaint(BytesIO(destination.read(name)), row)
    except StorageError as error:
        complaint = ("deleted" if error.reason == "not_found" else "unreadable", str(error))
    if complaint is None:
        return None
    problem, message = complaint
    known = {"key": row["key"], "output": row["output"], "redoable": row["redoable"]}
    return known | {"problem": problem, "message": message}


def _complaint(file: BytesIO | BufferedReader, row: dict[str, Any]) -> tuple[str, str] | None:
    """Return problem and message if an output's bytes differ from what the row says, else None."""
    digest = file_digest(file, "sha256").hexdigest()
    if digest != row["out_sha256"]:
        return "swapped", f"the file's sha256 begins {digest[:12]}, {row['out_sha256'][:12]} was written"
    try:
        header = read_facts(file).header
    except ImageError as error:
        return "dimensions", f"the header cannot be read: {error}"
    if (header.height, header.width) != (row["out_height"], row["out_width"]):
        stated, meant = f"{header.width} x {header.height}", f"{row['out_width']} x {row['out_height']}"
        return "dimensions", f"the header states {stated} pixels, {meant} were written"
    return None


def _split(rows: pa.Table, where: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
    return rows.filter(where), rows.filter(pc.invert(where))


def _problems(rows: pa.Table, problem: str, message: str | pa.ChunkedArray) -> pa.Table:
    """Return PROBLEM rows for all of `rows` (key, output, redoable)."""
    columns = {name: rows[name] for name in ("key", "output", "redoable")}
    columns["problem"] = pa.repeat(problem, len(rows))
    columns["message"] = pa.repeat(message, len(rows)) if isinstance(message, str) else message
    return pa.table([columns[name] for name in PROBLEM.names], schema=PROBLEM)
