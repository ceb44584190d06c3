"""The plan: the listing minus the ledger, so that a run reads nothing that is already done.

Nothing is fetched and the destination is not listed: an output that somebody deleted behind the ledger's back
counts as `current` here and is found by `pipeline.verify`, which can send it through again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger.ledger import Ledger
from pipeline.planning.listing import Listing
from pipeline.planning.superseded import SupersededFiles
from pipeline.tables.rows import as_bools
from pipeline.tables.schemas import (
    FAILED,
    LISTED,
    PENDING,
    RETRIED_BY_A_PLAIN_RUN,
    SKIPPED,
    TOO_LARGE,
    WORK,
    WRITTEN,
)
from pipeline.tables.spill import Rows

NEW, CHANGED, STALE, RETRY, FAILED_BEFORE = "new", "changed", "stale", "retry", "failed_before"
CURRENT, REFUSED = "current", "refused"

# Every listed key is in exactly one class, so the counts sum up to the keys listed.
CLASSES = {
    NEW: "no row in the ledger",
    CHANGED: "the version of the source, or of an input such as a mask, differs from the row's",
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
LEFT_OUT = pa.schema([*LISTED, ("recorded", pa.bool_())])

# Images beside the ledger: the key's `hash`; its class as `code`; `failed`: the newest row is no success, a pending one
# included; the file of its newest written row, and that of a pending one, or "".
_MATCHED = pa.schema(
    [
        *WORK,
        ("hash", pa.uint64()),
        ("code", pa.int8()),
        ("failed", pa.bool_()),
        ("written_output", pa.string()),
        ("pending_output", pa.string()),
    ]
)


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    work: PLANNED rows to run, left_out: LEFT_OUT rows, skipped and refused; both on local disk, bucket by bucket of the
    key's hash, and in a bucket, which is all of a listing of up to half a million keys, in the order of the listing.
    counts and sizes (bytes of source): an entry for each of CLASSES. vanished: keys of the ledger that are no longer
    listed; their outputs stay.
    """

    work: Rows
    left_out: Rows
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

    inventory: the whole listing, because names depend on all of it, as batches of LISTED
    (`Source.list`) or of INVENTORY (every key is an image then). recipe: its digest. requested_format:
    "same" or a writable format. max_megapixels: what was refused as larger by an earlier limit runs again if
    it fits this one. retry_failed: `work` holds what failed last time, whatever its class, and nothing else
    (`imgtx retry`).

    Holds one bucket of listing and ledger in memory, the rest goes through local disk. Raises UsageError for a ledger
    that cannot be read and where the disk for temporary files is full, StorageError if the storage fails.
    """
    listing = Listing(requested_format)
    for batch in inventory:
        listing.add(batch)
    buckets = listing.settle(ledger.bucket_count())
    count, files = _Count(), SupersededFiles()
    images, left_out, starts = Rows(_MATCHED), Rows(LEFT_OUT), []
    for index, state in enumerate(ledger.state_by_bucket(buckets, ("in_height", "in_width"))):
        starts.append(images.num_rows)
        listed = listing.read(index)
        matched = _match(listed, state, recipe, max_megapixels)
        is_image = pc.equal(listed["status"], "")
        images.add(matched.select(_MATCHED.names).filter(is_image))
        others = matched.filter(pc.invert(is_image))
        count.add(others)
        left_out.add(others.select(LEFT_OUT.names))
        still_listed = as_bools(pc.is_in(state["key"], listed["key"].combine_chunks()))
        count.vanished += int((~still_listed).sum())
        files.add(state, still_listed)
    files.settle(listing.names, buckets)
    work = Rows(PLANNED)
    for index, (start, stop) in enumerate(pairwise([*starts, images.num_rows])):
        matched = _judge(images.slice(start, stop - start), files, index)
        count.add(matched)
        work.add(_to_run(matched, retry_failed=retry_failed))
    return Plan(work, left_out, count.by_class(count.images), count.by_class(count.bytes), count.vanished)


class _Count:
    """Images and bytes of each class."""

    def __init__(self) -> None:
        self.images, self.bytes = (np.zeros(len(CLASSES), np.int64) for _ in range(2))
        self.vanished = 0

    def add(self, matched: pa.Table) -> None:
        codes = matched["code"].to_numpy()
        np.add.at(self.images, codes, 1)
        np.add.at(self.bytes, codes, matched["size"].to_numpy())

    def by_class(self, numbers: np.ndarray) -> dict[str, int]:
        return dict(zip(CLASSES, numbers.tolist(), strict=True))


def _match(listed: pa.Table, state: pa.Table, recipe: str, max_megapixels: float) -> pa.Table:
    """The listing of a bucket beside its ledger: columns of _MATCHED and of LEFT_OUT. The class is what a key's own
    rows tell."""
    known = state.take(pc.index_in(listed["key"], state["key"].combine_chunks()))
    pending = pc.fill_null(pc.equal(known["status"], PENDING), False)
    columns = {
        "code": pa.array(_classify(listed, known, recipe, max_megapixels)),
        "failed": pc.fill_null(pc.is_in(known["status"], pa.array([FAILED, PENDING])), False),
        "written_output": pc.fill_null(known["written_output"], ""),
        "pending_output": pc.if_else(pending, known["output"], ""),
        "recorded": pa.array(_equal(listed, known, "version", "status", "reason")),
    }
    for name, column in columns.items():
        listed = listed.append_column(name, column)
    return listed


def _judge(matched: pa.Table, files: SupersededFiles, index: int) -> pa.Table:
    """_MATCHED rows of a bucket with the last word on their class, and with `previous_output`."""
    codes, hashes = matched["code"].to_numpy().copy(), matched["hash"].to_numpy()
    codes[files.taken(hashes, index) & (codes == _CODES[CURRENT])] = _CODES[STALE]
    place = matched.schema.get_field_index("code")
    return matched.set_column(place, "code", pa.array(codes)).append_column(
        "previous_output", files.left(matched, hashes, index)
    )


def _to_run(judged: pa.Table, *, retry_failed: bool) -> pa.Table:
    """The PLANNED rows among them."""
    codes = judged["code"].to_numpy()
    run = np.isin(codes, [_CODES[cause] for cause in RUN])
    if retry_failed:
        run = (run | (codes == _CODES[FAILED_BEFORE])) & np.asarray(judged["failed"])
    causes = pa.DictionaryArray.from_arrays(judged["code"].combine_chunks(), pa.array(list(CLASSES)))
    judged = judged.append_column("cause", causes.cast(pa.string()))
    return judged.select(PLANNED.names).filter(pa.array(run))


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
    codes = [np.int8(_CODES[cause]) for _, cause in rules]
    return np.select([holds for holds, _ in rules], codes, np.int8(_CODES[STALE]))


def _equal(left: pa.Table, right: pa.Table, *columns: str) -> np.ndarray:
    """Where all of these columns agree: bool (rows,); null agrees with nothing."""
    return np.logical_and.reduce([as_bools(pc.equal(left[name], right[name])) for name in columns])
