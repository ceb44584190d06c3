"""What the source holds: listing -> Arrow batches, with the keys that are refused by name alone.

Keys stay in Arrow from end to end; millions of them never become Python objects.
"""

import re
from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.storage.store import Store
from pipeline.tables.schemas import FAILED, INVENTORY, SKIPPED

ROWS = 65_536

# An inventory row with what its name alone decides: `status` is "" for a row to process; otherwise
# `reason` is a word of records.REASONS, met in stage "list". `mask` is "" until `pipeline.tasks.inpainting` finds one.
CLASSIFIED = pa.schema(
    [
        *INVENTORY,
        ("status", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("mask", pa.string()),
    ]
)

_KEY_BYTES = 1024  # S3's own limit
_NAME_BYTES = 255  # of ext4, XFS, APFS, NTFS

# What a key must not be, on any destination.
_ESCAPES = (
    (r"^/", "starts with a slash"),
    (r"(^|/)\.\.?(/|$)", 'has "." or ".." between slashes'),
    (r"[\x{00}-\x{1f}\x{7f}]", "holds a control character, or a byte that is not UTF-8"),
)


def inventory(store: Store) -> Iterator[pa.RecordBatch]:
    """Every object under `store`, in batches of schema INVENTORY of about ROWS rows, in no promised order.

    Raises StorageError: a listing that cannot be read to its end is no inventory.
    """
    pages: list[pa.RecordBatch] = []
    rows = 0
    for page in store.list():
        pages.append(page)
        rows += page.num_rows
        if rows >= ROWS:
            yield _one(pages)
            pages, rows = [], 0
    if rows:
        yield _one(pages)


def classify(batch: pa.RecordBatch, suffixes: Collection[str], *, local_destination: bool) -> pa.RecordBatch:
    """`batch` (schema INVENTORY) with the columns of CLASSIFIED: what the name alone decides.

    `suffixes` are lower-case with their dot (`imgtx.codecs.SUFFIXES`); case is ignored. Other names are
    skipped (reason suffix). An image whose key would escape the destination, or cannot be a file name on a
    local one, is failed (reason unsafe_key) with a message that says what is wrong with it.
    """
    key = batch.column("key")
    complaint = _complaint(key, local_destination)
    is_image = pc.match_substring_regex(key, _suffix_pattern(suffixes), ignore_case=True)
    is_unsafe = pc.and_(is_image, pc.not_equal(complaint, ""))
    status = pc.case_when(pc.make_struct(pc.invert(is_image), is_unsafe), SKIPPED, FAILED, "")
    reason = pc.case_when(pc.make_struct(pc.invert(is_image), is_unsafe), "suffix", "unsafe_key", "")
    message = pc.if_else(is_unsafe, complaint, "")
    none = pa.repeat(pa.scalar(""), len(key))
    return pa.RecordBatch.from_arrays([*batch.columns, status, reason, message, none], schema=CLASSIFIED)


def images(store: Store, suffixes: Collection[str], *, local_destination: bool) -> Iterator[pa.RecordBatch]:
    """The rows of `inventory` whose name `classify` holds nothing against, in batches of schema INVENTORY."""
    for batch in inventory(store):
        named = classify(batch, suffixes, local_destination=local_destination)
        yield named.filter(pc.equal(named.column("status"), "")).select(INVENTORY.names)


def _one(pages: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(pages, schema=INVENTORY).combine_chunks().to_batches()[0]


def _suffix_pattern(suffixes: Collection[str]) -> str:
    return "(" + "|".join(re.escape(suffix) for suffix in suffixes) + ")$"


def _complaint(key: pa.Array, local_destination: bool) -> pa.Array:
    """What makes each key unsafe, in words; "" for a safe key."""
    rules = [(pc.match_substring_regex(key, pattern), words) for pattern, words in _ESCAPES]
    too_long = pc.greater(pc.binary_length(key), _KEY_BYTES)
    rules.append((too_long, f"is longer than {_KEY_BYTES} bytes"))
    if local_destination:
        rules.append((pc.match_substring(key, "//"), "has nothing between two slashes"))
        rules.append((_has_long_name(key), f"has a part longer than {_NAME_BYTES} bytes"))
    conditions, words = zip(*rules, strict=True)
    legal = "a key is file names joined by single slashes: rename the object"
    texts = [f"the key {text}; {legal}" for text in words]
    return pc.case_when(pc.make_struct(*conditions), *texts, "")


def _has_long_name(key: pa.Array) -> pa.Array:
    # The regular expression engine repeats at most 1,000 times and counts characters where this reads bytes.
    return pc.match_substring_regex(key.cast(pa.binary()), rf"[^/]{{{_NAME_BYTES + 1}}}")
