"""Plan a run: the listing minus the ledger, so that nothing is read that is already done.

Nothing is fetched and the destination is not listed. An output that was deleted without the ledger counts as
`current` here; `pipeline.verify` finds it and can mark it pending.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger.ledger import Ledger
from pipeline.planning.listing import Listing
from pipeline.planning.superseded import SupersededFiles
from pipeline.sources.selection import Selection
from pipeline.tables.rows import as_bools, counts_of
from pipeline.tables.schemas import (
    EXCLUDED,
    FAILED,
    HIDDEN,
    LARGE_ENOUGH,
    LISTED,
    NOT_FOUND,
    PENDING,
    REASONS,
    RETRIED_BY_A_PLAIN_RUN,
    SKIPPED,
    SUFFIX,
    TOO_LARGE,
    TRUNCATED,
    WORK,
    WRITTEN,
)
from pipeline.tables.spill import Rows

NEW, CHANGED, OLDER, STALE = "new", "changed", "older_imgtx", "stale"
RETRY, FAILED_BEFORE = "retry", "failed_before"
CURRENT, REFUSED = "current", "refused"

# Every listed key is in exactly one class, so the counts sum up to the keys listed.
CLASSES = {
    NEW: "no row in the ledger",
    CHANGED: "the version of the source, or of an input such as a mask, differs from the row's",
    OLDER: "made or refused by an older imgtx, which computed other pixels or read other files by this recipe",
    STALE: "the recipe or the output's name differs: another key now shares that name, or has reused it",
    RETRY: "failed for a reason that may pass, interrupted by a stop, or marked pending by verify",
    FAILED_BEFORE: "would fail again; processed only by `imgtx retry`",
    CURRENT: "written from this version by this recipe under this name",
    REFUSED: "no output can have its name, a table's row cannot be used, or a listed key is not there: fails unread",
    SKIPPED: "not an image by its name, without a mask where masks are given, larger than --skip-larger-than (once its "
    "header was read), or a row that repeats another",
}
# The classes that a plain run processes.
RUN = (NEW, CHANGED, OLDER, STALE, RETRY)
# Classes whose output may exist already, named by a row that a new output makes untrue.
OVERWRITES = (CHANGED, OLDER, STALE, RETRY)
# Skipped keys are counted by at most so many suffixes; the rest is one number.
MOST_KINDS, OTHER_KINDS = 1000, "others"
_SUFFIX = r"(?P<suffix>\.[^./ ]{1,10})$"
_CODES = {cause: code for code, cause in enumerate(CLASSES)}

# `cause` is the class; `previous_output` is a superseded file to delete once the new one is written, or "".
PLANNED = pa.schema([*WORK, ("cause", pa.string()), ("previous_output", pa.string())])

# `recorded`: the ledger's newest row of the key already says the same.
LEFT_OUT = pa.schema([*LISTED, ("recorded", pa.bool_())])

# Listed images beside their ledger rows: the key's `hash`; its class as `code`; `failed`: whether the newest row is
# failed or pending; the file of the newest written row and that of a pending row, each "" where there is none.
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

    work: PLANNED rows to process. left_out: LEFT_OUT rows, skipped or refused. Both are on local disk in buckets of
    the key's hash, within a bucket in the order of the listing; up to half a million keys are one bucket. counts and
    sizes (bytes of source): an entry for each of CLASSES. vanished: number of keys of the ledger that are no longer in
    the source; their outputs stay.

    not_listed: number of files and whole folders that the selection leaves out, by HIDDEN and EXCLUDED; they do not
    count as listed. skipped_kinds: number of skipped keys by suffix ("" for none), or by reason where it is another.

    replaces, deletes: number of existing outputs that the work makes again, although their sources have not changed,
    under the same name and under another.
    """

    work: Rows
    left_out: Rows
    counts: dict[str, int]
    sizes: dict[str, int]
    vanished: int
    not_listed: dict[str, int] = field(default_factory=dict)
    skipped_kinds: dict[str, int] = field(default_factory=dict)
    replaces: int = 0
    deletes: int = 0

    @property
    def images(self) -> int:
        """Return the number of listed keys that are not skipped."""
        return self.listed - self.counts[SKIPPED]

    @property
    def listed(self) -> int:
        """Return the number of keys in the source."""
        return sum(self.counts.values())


def make_plan(
    inventory: Iterable[pa.RecordBatch],
    ledger: Ledger,
    *,
    recipe: str,
    older_recipes: Sequence[str] = (),
    recipes_by_quality: Sequence[tuple[int, int, str]] = (),
    requested_format: str,
    selection: Selection | None = None,
    max_megapixels: float = 0.0,
    accept_damage: bool = False,
    skip_larger_than: int | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Classify every listed key and name the outputs of those to process.

    inventory: the whole listing, because names depend on all of it, as batches of LISTED (`Source.list`) or of
    INVENTORY, where every key is an image. recipe: its digest; older_recipes: those that older versions of imgtx gave
    it (`Recipe.older_digests`). recipes_by_quality: of a run that chooses a model for each picture: the lowest and the
    highest `quality` of those with this recipe. requested_format: "same" or a writable format.
    selection: the keys that the listing is limited to; the names of the others' outputs stay theirs.
    max_megapixels: an image that an earlier, lower limit refused is processed again if it fits this one; accept_damage:
    and so is a truncated one. skip_larger_than: an image that was skipped for a side longer than that stays skipped.
    retry_failed: `work` has only the images that failed last time, of any class (`imgtx retry`).

    Holds one bucket of listing and ledger in memory; the rest goes through local disk. Raises UsageError if the ledger
    cannot be read or the disk for temporary files is full, StorageError if the storage fails.
    """
    listing = Listing(requested_format)
    for batch in inventory:
        listing.add(batch)
    if selection and not selection.is_default:
        for keys, written in _not_selected(ledger, selection):
            listing.reserve(keys, written)
    buckets = listing.settle(ledger.bucket_count())
    count, files = _Count(), SupersededFiles()
    images, left_out, starts = Rows(_MATCHED), Rows(LEFT_OUT), []
    recipes = Recipes(recipe, older_recipes, recipes_by_quality)
    also = ("in_height", "in_width", "quality", "item")
    for index, state in enumerate(ledger.state_by_bucket(buckets, also)):
        starts.append(images.num_rows)
        listed = count.without_what_is_aside(_without_vanished(listing.read(index), state))
        matched = _match(listed, state, recipes, max_megapixels, accept_damage, skip_larger_than)
        is_image = pc.equal(listed["status"], "")
        images.add(matched.select(_MATCHED.names).filter(is_image))
        others = matched.filter(pc.invert(is_image))
        count.add(others)
        count.skip(others)
        left_out.add(others.select(LEFT_OUT.names))
        still_listed = as_bools(pc.is_in(state["key"], listed["key"].combine_chunks()))
        in_source = selection.takes(source_keys(state)) if selection else np.ones(len(state), bool)
        count.vanished += int((~still_listed & in_source).sum())
        files.add(state, still_listed)
    files.settle(listing.names, buckets)
    work = Rows(PLANNED)
    for index, (start, stop) in enumerate(pairwise([*starts, images.num_rows])):
        matched = _with_files(images.slice(start, stop - start), files, index)
        count.add(matched)
        to_run = _to_run(matched, retry_failed=retry_failed)
        count.add_outputs(to_run)
        work.add(to_run.select(PLANNED.names))
    return Plan(
        work,
        left_out,
        count.by_class(count.images),
        count.by_class(count.bytes),
        count.vanished,
        count.not_listed,
        dict(count.skipped_kinds.most_common()),
        count.replaces,
        count.deletes,
    )


def _not_selected(ledger: Ledger, selection: Selection) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Yield the images of the ledger that a selection does not take, and the file of each or ""."""
    for state in ledger.state_by_bucket(ledger.bucket_count(), ("item",)):
        images = state.filter(pc.not_equal(state["status"], SKIPPED))
        others = images.filter(pa.array(~selection.takes(source_keys(images))))
        yield others["key"].combine_chunks(), others["written_output"].combine_chunks()


def source_keys(state: pa.Table) -> pa.Array:
    """Return the source's key of each row of the ledger."""
    return pc.if_else(pc.equal(state["item"], ""), state["key"], state["item"]).combine_chunks()


def _without_vanished(listed: pa.Table, state: pa.Table) -> pa.Table:
    """Return listed rows without those that are not in the source and were written before: they keep their rows."""
    absent = pc.equal(listed["reason"], NOT_FOUND)
    written = state["key"].filter(pc.not_equal(state["written_output"], "")).combine_chunks()
    return listed.filter(pc.invert(pc.and_(absent, pc.is_in(listed["key"], written))))


@dataclass(frozen=True)
class Recipes:
    """Digests of recipes, as `make_plan` takes them: which rows of the ledger are this run's own."""

    own: str
    older: Sequence[str]
    by_quality: Sequence[tuple[int, int, str]]

    def are_own(self, known: pa.Table) -> np.ndarray:
        """Return where a STATE row's recipe is the one that this run gives its picture: bool (rows,)."""
        made = as_bools(pc.equal(known["recipe"], self.own))
        for lowest, highest, digest in self.by_quality:
            theirs = pc.and_(
                pc.greater_equal(known["quality"], lowest), pc.less_equal(known["quality"], highest)
            )
            made |= as_bools(pc.and_(theirs, pc.equal(known["recipe"], digest)))
        return made


class _Count:
    """Number of images and bytes in each class."""

    def __init__(self) -> None:
        self.images, self.bytes = (np.zeros(len(CLASSES), np.int64) for _ in range(2))
        self.vanished = 0
        self.not_listed = {HIDDEN: 0, EXCLUDED: 0}
        self.skipped_kinds = Counter[str]()
        self.replaces = self.deletes = 0

    def add_outputs(self, to_run: pa.Table) -> None:
        """Count the outputs of unchanged sources that planned rows replace or delete."""
        by_recipe = to_run.filter(pc.is_in(to_run["cause"], pa.array([STALE, OLDER])))
        existing = by_recipe.filter(pc.not_equal(by_recipe["written_output"], ""))
        deleted = int(as_bools(pc.not_equal(existing["previous_output"], "")).sum())
        self.deletes += deleted
        self.replaces += len(existing) - deleted

    def skip(self, others: pa.Table) -> None:
        """Count skipped rows by what they are."""
        skipped = others.filter(pc.equal(others["status"], SKIPPED))
        by_name = pc.equal(skipped["reason"], SUFFIX)
        suffix = pc.struct_field(pc.extract_regex(pc.utf8_lower(skipped["key"]), _SUFFIX), "suffix")
        kinds = counts_of(pc.if_else(by_name, pc.fill_null(suffix, ""), skipped["reason"]))
        for kind, number in kinds.items():
            known = kind in self.skipped_kinds or kind in REASONS or len(self.skipped_kinds) < MOST_KINDS
            self.skipped_kinds[kind if known else OTHER_KINDS] += number

    def without_what_is_aside(self, listed: pa.Table) -> pa.Table:
        """Count the listed rows that the selection leaves out; return the others."""
        for reason in self.not_listed:
            rest = listed.filter(pc.not_equal(listed["reason"], reason))
            self.not_listed[reason] += len(listed) - len(rest)
            listed = rest
        return listed

    def add(self, matched: pa.Table) -> None:
        codes = matched["code"].to_numpy()
        np.add.at(self.images, codes, 1)
        np.add.at(self.bytes, codes, matched["size"].to_numpy())

    def by_class(self, numbers: np.ndarray) -> dict[str, int]:
        return dict(zip(CLASSES, numbers.tolist(), strict=True))


def _match(
    listed: pa.Table,
    state: pa.Table,
    recipes: Recipes,
    max_megapixels: float,
    accept_damage: bool,
    skip_larger_than: int | None,
) -> pa.Table:
    """Join the listing of a bucket with its ledger: columns of _MATCHED and of LEFT_OUT.

    The class follows from a key's own rows; `_with_files` corrects it by those of other keys.
    """
    known = state.take(pc.index_in(listed["key"], state["key"].combine_chunks()))
    pending = pc.fill_null(pc.equal(known["status"], PENDING), False)
    columns = {
        "code": pa.array(_classify(listed, known, recipes, max_megapixels, accept_damage, skip_larger_than)),
        "failed": pc.fill_null(pc.is_in(known["status"], pa.array([FAILED, PENDING])), False),
        "written_output": pc.fill_null(known["written_output"], ""),
        "pending_output": pc.if_else(pending, known["output"], ""),
        "recorded": pa.array(_equal(listed, known, "version", "status", "reason")),
    }
    for name, column in columns.items():
        listed = listed.append_column(name, column)
    return listed


def _with_files(matched: pa.Table, files: SupersededFiles, index: int) -> pa.Table:
    """Add `previous_output` to the _MATCHED rows of a bucket; a current file that was reused makes its row stale."""
    codes, hashes = matched["code"].to_numpy().copy(), matched["hash"].to_numpy()
    codes[files.reused(hashes, index) & (codes == _CODES[CURRENT])] = _CODES[STALE]
    place = matched.schema.get_field_index("code")
    return matched.set_column(place, "code", pa.array(codes)).append_column(
        "previous_output", files.orphaned(matched, hashes, index)
    )


def _to_run(matched: pa.Table, *, retry_failed: bool) -> pa.Table:
    """Return the rows to process: the columns of PLANNED, and `written_output`."""
    codes = matched["code"].to_numpy()
    run = np.isin(codes, [_CODES[cause] for cause in RUN])
    if retry_failed:
        run = (run | (codes == _CODES[FAILED_BEFORE])) & np.asarray(matched["failed"])
    causes = pa.DictionaryArray.from_arrays(matched["code"].combine_chunks(), pa.array(list(CLASSES)))
    matched = matched.append_column("cause", causes.cast(pa.string()))
    return matched.select([*PLANNED.names, "written_output"]).filter(pa.array(run))


def _classify(
    listed: pa.Table,
    known: pa.Table,
    recipes: Recipes,
    max_megapixels: float,
    accept_damage: bool,
    skip_larger_than: int | None,
) -> np.ndarray:
    """Return the class of each listed key: int8 (rows,). known: its STATE row, null where there is none."""
    status = known["status"]
    failed = as_bools(pc.equal(status, FAILED))
    may_pass = failed & as_bools(pc.is_in(known["reason"], pa.array(sorted(RETRIED_BY_A_PLAIN_RUN))))
    may_pass |= failed & accept_damage & as_bools(pc.equal(known["reason"], TRUNCATED))
    pixels = pc.multiply(known["in_height"].cast(pa.int64()), known["in_width"].cast(pa.int64()))
    fits_now = as_bools(pc.and_(pc.greater(pixels, 0), pc.less_equal(pixels, int(max_megapixels * 1e6))))
    may_pass |= failed & fits_now & as_bools(pc.equal(known["reason"], TOO_LARGE))
    longest = pc.max_element_wise(known["in_height"], known["in_width"])
    still_large = as_bools(pc.and_(pc.equal(status, SKIPPED), pc.equal(known["reason"], LARGE_ENOUGH)))
    still_large &= _equal(listed, known, "version")
    still_large &= as_bools(pc.greater(longest, skip_larger_than)) if skip_larger_than else False
    # The first that holds decides.
    rules = [
        (as_bools(pc.equal(listed["status"], SKIPPED)), SKIPPED),
        (as_bools(pc.not_equal(listed["status"], "")), REFUSED),
        (still_large, SKIPPED),
        (as_bools(pc.is_null(status)) | as_bools(pc.equal(status, SKIPPED)), NEW),
        (~_equal(listed, known, "version"), CHANGED),
        (as_bools(pc.equal(status, PENDING)), RETRY),
        (as_bools(pc.is_in(known["recipe"], pa.array(recipes.older, pa.string()))), OLDER),
        (~recipes.are_own(known), STALE),
        (may_pass, RETRY),
        (failed, FAILED_BEFORE),
        (as_bools(pc.equal(status, WRITTEN)) & _equal(listed, known, "output"), CURRENT),
    ]
    codes = [np.int8(_CODES[cause]) for _, cause in rules]
    return np.select([holds for holds, _ in rules], codes, np.int8(_CODES[STALE]))


def _equal(left: pa.Table, right: pa.Table, *columns: str) -> np.ndarray:
    """Return where all of these columns are equal: bool (rows,); null equals nothing."""
    return np.logical_and.reduce([as_bools(pc.equal(left[name], right[name])) for name in columns])
