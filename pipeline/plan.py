"""The plan: the listing minus the ledger, so that a run reads nothing that is already done.

Nothing is fetched and the destination is not listed: an output that somebody deleted behind the ledger's back
counts as `current` here and is found by `pipeline.verify`, which can send it through again.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.buckets import bucket_of, hash64
from pipeline.inventory import CLASSIFIED
from pipeline.ledger import Ledger
from pipeline.names import fold, output_names
from pipeline.records import FAILED, PENDING, RETRIED_BY_A_PLAIN_RUN, SKIPPED, TOO_LARGE, WORK, WRITTEN
from pipeline.rows import as_bools

NEW, CHANGED, STALE, RETRY, FAILED_BEFORE = "new", "changed", "stale", "retry", "failed_before"
CURRENT, REFUSED = "current", "refused"

# Every listed key is in exactly one class, so the counts sum up to the keys listed.
CLASSES = {
    NEW: "no row in the ledger",
    CHANGED: "the source's version, or its mask's, differs from the row's",
    STALE: "the recipe differs, or the output's name: another key now shares it, or has taken it",
    RETRY: "failed for a reason that time may mend, cut short by a stop, or sent back by verify",
    FAILED_BEFORE: "failed as it would again; run only on request",
    CURRENT: "written from this version by this recipe under this name",
    REFUSED: "an image by its name, which no output can have: fails without a fetch",
    SKIPPED: "not an image by its name, or without a mask where masks are asked for",
}
RUN = (NEW, CHANGED, STALE, RETRY)  # the classes of a plain run
# Classes whose output may lie there from before, vouched for by a row that a new output makes untrue.
OVERWRITES = (CHANGED, STALE, RETRY)
_CODES = {cause: code for code, cause in enumerate(CLASSES)}

# `cause` is the class; `previous_output` is a superseded file to delete when the new one is there, or "".
PLANNED = pa.schema([*WORK, ("cause", pa.string()), ("previous_output", pa.string())])

# `recorded`: the ledger's newest row of the key says the same already.
LEFT_OUT = pa.schema([*CLASSIFIED, ("recorded", pa.bool_())])


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    work: PLANNED rows to run, in the order of the listing. left_out: LEFT_OUT rows, skipped and refused.
    counts and sizes (bytes of source): an entry for each of CLASSES. vanished: keys of the ledger that are no
    longer listed; their outputs stay.
    """

    work: pa.Table
    left_out: pa.Table
    counts: dict[str, int]
    sizes: dict[str, int]
    vanished: int

    @property
    def listed(self) -> int:
        """Keys in the source."""
        return sum(self.counts.values())


def make_plan(
    inventory: Iterable[pa.RecordBatch],
    ledger: Ledger,
    *,
    recipe: str,
    requested_format: str,
    max_megapixels: float = 0.0,
    retry_failed: bool = False,
) -> Plan:
    """Class every listed key and name the outputs of those to run.

    inventory: the whole listing, because names depend on all of it, as batches of CLASSIFIED
    (`inventory.classify`) or of INVENTORY (every key is an image then). recipe: its digest. requested_format:
    "same" or a writable format. max_megapixels: what was refused as larger by an earlier limit runs again if
    it fits this one. retry_failed: `work` holds what failed last time, whatever its class, and nothing else
    (`imgtx retry`).

    Holds the listing in memory, a few hundred bytes a key; the ledger passes by in buckets. Raises UsageError
    for a ledger that cannot be read, StorageError if the storage fails.
    """
    listing = _read_listing(inventory)
    images = pc.equal(listing["status"], "").combine_chunks()
    names = output_names(listing["key"].filter(images), requested_format)
    listing = listing.append_column("output", pc.replace_with_mask(_blank(len(listing)), images, names))

    match = _match(listing, ledger, recipe, max_megapixels)
    codes, written = match.codes, match.written
    taken = written.row[(written.row >= 0) & ~written.owns]
    codes[taken[codes[taken] == _CODES[CURRENT]]] = _CODES[STALE]

    run = np.isin(codes, [_CODES[cause] for cause in RUN])
    if retry_failed:
        run = (run | (codes == _CODES[FAILED_BEFORE])) & match.failed
    causes = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(CLASSES))).cast(pa.string())
    previous = _superseded(written, run, hash64(fold(names)))
    sizes = listing["size"].to_numpy()
    return Plan(
        work=pa.table([*listing.select(WORK.names).columns, causes, previous], schema=PLANNED).filter(
            pa.array(run)
        ),
        left_out=listing.select(CLASSIFIED.names)
        .append_column("recorded", pa.array(match.recorded))
        .filter(pc.invert(images)),
        counts={cause: int((codes == code).sum()) for cause, code in _CODES.items()},
        sizes={cause: int(sizes[codes == code].sum()) for cause, code in _CODES.items()},
        vanished=match.vanished,
    )


def _read_listing(inventory: Iterable[pa.RecordBatch]) -> pa.Table:
    """CLASSIFIED rows, one for each key: a listing taken in pieces may hold a key twice."""
    tables = [CLASSIFIED.empty_table()]
    for batch in inventory:
        table = pa.Table.from_batches([batch])
        for name in ("status", "reason", "message", "mask"):
            if name not in table.column_names:
                table = table.append_column(name, _blank(len(table)))
        tables.append(table.select(CLASSIFIED.names).cast(CLASSIFIED))
    listing = pa.concat_tables(tables).combine_chunks()
    hashes = np.sort(hash64(listing["key"]))
    if (hashes[1:] != hashes[:-1]).all():
        return listing
    numbered = pa.table({"key": listing["key"], "row": np.arange(len(listing))})
    last = numbered.group_by("key").aggregate([("row", "max")])["row_max"]
    return listing.take(np.sort(last.to_numpy()))


@dataclass(frozen=True)
class _Written:
    """The files that the ledger's keys call theirs; arrays (files,).

    One for each key that was ever written, and one for each that was pending: a run that was cut short may have
    put it. row: the key's row in the listing, -1 if it is no longer listed. hash: of the folded name. owns: no
    other key has written a file of that name since.
    """

    row: np.ndarray
    name: pa.ChunkedArray
    hash: np.ndarray
    owns: np.ndarray


@dataclass(frozen=True)
class _Match:
    """The listing beside the ledger: codes int8, failed and recorded bool, all (listed,); see Plan for the rest.

    failed: the newest row is no success, a pending one included.
    """

    codes: np.ndarray
    failed: np.ndarray
    recorded: np.ndarray
    written: _Written
    vanished: int


def _match(listing: pa.Table, ledger: Ledger, recipe: str, max_megapixels: float) -> _Match:
    """Each listed key's class as far as its own ledger rows tell it, and whose files stand in the
    destination."""
    buckets = ledger.bucket_count()
    bucket = bucket_of(listing["key"], buckets)
    order = np.argsort(bucket, kind="stable")
    edges = np.searchsorted(bucket[order], np.arange(buckets + 1))
    codes, vanished = np.empty(len(listing), np.int8), 0
    failed, recorded = np.zeros(len(listing), bool), np.zeros(len(listing), bool)
    rows, names, sequences = [], [], []
    for index, state in enumerate(ledger.state_by_bucket(buckets, ("in_height", "in_width"))):
        here = order[edges[index] : edges[index + 1]]
        listed = listing.take(here) if buckets > 1 else listing
        known = state.take(pc.index_in(listed["key"], state["key"].combine_chunks()))
        codes[here] = _classify(listed, known, recipe, max_megapixels)
        failed[here] = as_bools(pc.is_in(known["status"], pa.array([FAILED, PENDING])))
        recorded[here] = _equal(listed, known, "version", "status", "reason")
        place = pc.index_in(state["key"], listed["key"].combine_chunks())
        vanished += place.null_count
        row = np.append(here, -1)[np.asarray(pc.fill_null(place, -1))]
        for name, sequence, there in (
            ("written_output", "written_sequence", pc.not_equal(state["written_output"], "")),
            ("output", "sequence", pc.equal(state["status"], PENDING)),
        ):
            rows.append(row[as_bools(there)])
            names.append(state[name].filter(there))
            sequences.append(state[sequence].filter(there).to_numpy())
    name = pa.chunked_array([chunk for column in names for chunk in column.chunks], pa.string())
    hashes = hash64(fold(name))
    written = _Written(np.concatenate(rows), name, hashes, _last_of_each(hashes, np.concatenate(sequences)))
    return _Match(codes, failed, recorded, written, vanished)


def _classify(listed: pa.Table, known: pa.Table, recipe: str, max_megapixels: float) -> np.ndarray:
    """The class of each listed key by what is known of it (STATE rows, null where nothing is): int8
    (rows,)."""
    status = known["status"]
    failed = as_bools(pc.equal(status, FAILED))
    may_mend = failed & as_bools(pc.is_in(known["reason"], pa.array(sorted(RETRIED_BY_A_PLAIN_RUN))))
    pixels = pc.multiply(known["in_height"].cast(pa.int64()), known["in_width"].cast(pa.int64()))
    fits_now = as_bools(pc.and_(pc.greater(pixels, 0), pc.less_equal(pixels, int(max_megapixels * 1e6))))
    may_mend |= failed & fits_now & as_bools(pc.equal(known["reason"], TOO_LARGE))
    rules = [  # the first that holds
        (as_bools(pc.equal(listed["status"], SKIPPED)), SKIPPED),
        (as_bools(pc.not_equal(listed["status"], "")), REFUSED),
        (as_bools(pc.is_null(status)) | as_bools(pc.equal(status, SKIPPED)), NEW),
        (~_equal(listed, known, "version"), CHANGED),
        (as_bools(pc.equal(status, PENDING)), RETRY),
        (~as_bools(pc.equal(known["recipe"], recipe)), STALE),
        (may_mend, RETRY),
        (failed, FAILED_BEFORE),
        (as_bools(pc.equal(status, WRITTEN)) & _equal(listed, known, "output"), CURRENT),
    ]
    return np.select([holds for holds, _ in rules], [_CODES[cause] for _, cause in rules], _CODES[STALE])


def _superseded(written: _Written, run: np.ndarray, new_hashes: np.ndarray) -> pa.Array:
    """The file that each key to run leaves behind under another name, "" for the rest: strings (listed,).

    Never a file that another key has taken since, nor a name that this listing gives to any key. Of two, after a
    run that was cut short, one; `pipeline.verify` names the other.
    """
    left = (written.row >= 0) & written.owns & ~np.isin(written.hash, new_hashes)
    left[left] = run[written.row[left]]
    rows, first = np.unique(written.row[left], return_index=True)
    names = written.name.filter(pa.array(left)).combine_chunks().take(pa.array(first))
    mask = np.zeros(len(run), bool)
    mask[rows] = True
    return pc.replace_with_mask(_blank(len(run)), pa.array(mask), names)


def _last_of_each(hashes: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """Which entries have the highest sequence among those of their hash: bool (entries,)."""
    order = np.lexsort((sequences, hashes))
    last = np.ones(len(order), bool)
    last[order[:-1]] = hashes[order[1:]] != hashes[order[:-1]]
    return last


def _equal(left: pa.Table, right: pa.Table, *columns: str) -> np.ndarray:
    """Where all of these columns agree: bool (rows,); null agrees with nothing."""
    return np.logical_and.reduce([as_bools(pc.equal(left[name], right[name])) for name in columns])


def _blank(count: int) -> pa.Array:
    return pa.repeat(pa.scalar(""), count)
