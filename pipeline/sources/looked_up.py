"""Find listed keys in a storage: few of them one by one, many in a listing of what they have in common.

On disk a key is looked up in microseconds, however many there are; a bucket answers one request a key, or one for a
thousand keys of a listing.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgtx.errors import StorageError
from pipeline.sources.globs import common_beginning
from pipeline.sources.key_list import KeyList
from pipeline.storage.store import Store
from pipeline.tables.hashing import among, hash64
from pipeline.tables.schemas import FORBIDDEN, INVENTORY, UNSAFE_KEY

# Keys that are asked for one by one outside local disk.
MOST = 10_000
_ASKING = 16
_ROWS = 1 << 14

# Rows of INVENTORY, and whether there are such objects: absent ones have no size and no version.
Found = tuple[pa.RecordBatch, bool]


def look_up(store: Store, keys: KeyList) -> Iterator[Found]:
    """Yield the keys of a list, those of a batch either all there or all absent.

    Takes bounded memory on disk, and some 20 bytes a key elsewhere. Raises StorageError if the storage fails.
    """
    if store.is_local or len(keys) <= MOST:
        for some in keys.batches(_ROWS):
            yield from one_by_one(store, some)
    else:
        yield from _in_listing(store, keys)


def one_by_one(store: Store, keys: pa.Array) -> Iterator[Found]:
    """Yield the keys that are there, then those that are absent."""
    names = keys.to_pylist()
    # Several keys at a time: on a disk, handing one to a thread takes longer than looking it up.
    size = -(-len(names) // (4 * _ASKING)) or 1
    pieces = [names[start : start + size] for start in range(0, len(names), size)]
    with ThreadPoolExecutor(_ASKING) as pool:
        answers = list(chain.from_iterable(pool.map(partial(_ask_for, store), pieces)))
    there = np.array([answer is not None for answer in answers], bool)
    if there.any():
        sizes, versions = zip(*filter(None, answers), strict=True)
        columns = [keys.filter(pa.array(there)), pa.array(sizes, pa.int64()), pa.array(versions, pa.string())]
        yield pa.RecordBatch.from_arrays(columns, schema=INVENTORY), True
    if not there.all():
        yield _absent(keys.filter(pa.array(~there))), False


def _ask_for(store: Store, keys: Sequence[str]) -> list[tuple[int, str] | None]:
    return [_ask(store, key) for key in keys]


def _ask(store: Store, key: str) -> tuple[int, str] | None:
    """Return size and version of an object, None where there is none, unknown ones where only reading tells why."""
    try:
        return store.stat(key)
    except StorageError as error:
        if error.reason in (FORBIDDEN, UNSAFE_KEY):
            return 0, ""
        raise


def _in_listing(store: Store, keys: KeyList) -> Iterator[Found]:
    ends = [pc.min_max(some).as_py() for some in keys.batches()]
    beginning = common_beginning([text for both in ends for text in both.values()])
    seen = [np.zeros(0, np.uint64)]
    for page in store.list(beginning):
        hashes = hash64(page.column("key"))
        wanted = among(hashes, keys.hashes)
        if wanted.any():
            seen.append(hashes[wanted])
            yield page.filter(pa.array(wanted)), True
    found = np.unique(np.concatenate(seen))
    for some in keys.batches():
        absent = ~among(hash64(some), found)
        if absent.any():
            yield _absent(some.filter(pa.array(absent))), False


def _absent(keys: pa.Array) -> pa.RecordBatch:
    columns = [keys, pa.array(np.zeros(len(keys), np.int64)), pa.repeat("", len(keys))]
    return pa.RecordBatch.from_arrays(columns, schema=INVENTORY)
