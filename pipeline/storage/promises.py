"""Try what a run needs of its destination (docs/explanation/storage.md), and leave nothing behind."""

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from imgtx.errors import StorageError
from pipeline.storage.store import Store

WHOLE = "an object that is written again is read whole and new at once"
LISTED = "an object that was written is listed at once, and one that was deleted is not"
EXCLUSIVE = "of several processes that create an object at the same time exactly one succeeds"
PROMISES = (WHOLE, LISTED, EXCLUSIVE)

# Under the root, with a new name each time, so that several may try at once.
PREFIX = ".imgtx-doctor-"
CREATORS = 4
# Two contents that differ in every byte.
OLD, NEW = b"0" * 4096, b"1" * 4000


def broken_promises(store: Store) -> list[str]:
    """Return the promises that the storage does not keep, of PROMISES; StorageError where it refuses a request.

    Writes a few objects of 4 kB and deletes them, with the folders that were made for them.
    """
    folder = f"{PREFIX}{uuid.uuid4().hex[:12]}/"
    with _trial(store, folder):
        kept = {WHOLE: _whole(store, f"{folder}object"), EXCLUSIVE: _exclusive(store, f"{folder}created")}
        kept[LISTED] = _listed(store, folder)
    return [promise for promise in PROMISES if not kept[promise]]


def _whole(store: Store, key: str) -> bool:
    store.write(key, OLD)
    store.write(key, NEW)
    facts = store.stat(key)
    return facts is not None and facts[0] == len(NEW) and _read(store, key) == NEW


def _exclusive(store: Store, key: str) -> bool:
    with ThreadPoolExecutor(CREATORS) as pool:
        contents = [bytes([number]) * 4096 for number in range(CREATORS)]
        created = [*pool.map(lambda content: store.create(key, content), contents)]
    return created.count(True) == 1 and _read(store, key) == contents[created.index(True)]


def _listed(store: Store, folder: str) -> bool:
    before = _keys(store, folder)
    store.delete(f"{folder}object")
    return before == {f"{folder}object", f"{folder}created"} and _keys(store, folder) == {f"{folder}created"}


def _read(store: Store, key: str) -> bytes | None:
    """Return an object, None where the storage does not show it yet."""
    try:
        return store.read(key)
    except StorageError as error:
        if error.reason == "not_found":
            return None
        raise


def _keys(store: Store, folder: str) -> set[str]:
    return {key for batch in store.list(folder) for key in batch["key"].to_pylist()}


@contextmanager
def _trial(store: Store, folder: str) -> Iterator[None]:
    """Delete the objects of the trial at the end of the block, and the local folders that it had to make."""
    inner = Path(store.uri, folder)
    made = [path for path in (inner, *inner.parents) if not path.exists()] if store.is_local else []
    try:
        yield
    finally:
        for name in ("object", "created"):
            # The first error is the one to report.
            with suppress(StorageError):
                store.delete(folder + name)
        for path in made:
            # Not empty: another process has begun to use it.
            with suppress(OSError):
                os.rmdir(path)
