"""Models that are folders in storage: their files on this machine, in the same cache as plain files.

Only what the model is made of is fetched: published folders hold the same weights several times. The folder is put
there whole, under the digest of what was fetched, which is computed again at each use. Of processes that start side by
side on an empty cache one fetches, and the others wait for it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from imgtx.errors import ImgtxError, ModelError, StorageError, UsageError
from imgtx.models.adapters.base import Adapter, Source
from imgtx.models.references import folder_adapter
from pipeline.models.cache import cache_folder, fetch_sidecar, whole_file, writable_cache
from pipeline.storage.store import Store, open_store

# Files that are fetched at the same time.
_AT_ONCE = 4


def fetch_folder(uri: str, prefix: str, endpoint_url: str | None) -> str:
    """Return the local reference of a folder in storage, fetched unless the copy in the cache is current.

    prefix: an adapter's, with its colon, or "" where the folder's files say whose it is. Raises UsageError where there
    is no such folder or it is of no kind that imgtx runs, ModelError for one that is not whole, StorageError.
    """
    store, name = open_store(uri, endpoint_url=endpoint_url), uri.rpartition("/")[2]
    listed = {
        row["key"]: (row["size"], row["version"]) for batch in _list(store) for row in batch.to_pylist()
    }
    if not listed:
        raise UsageError(f"no model at {uri}/: check the name, or give the URI of a file")
    adapter = folder_adapter(prefix.rstrip(":"), listed)
    if adapter is None or adapter.folder_files is None:
        marks = [a.MARK for kind in ("diffusers", "transformers") if (a := folder_adapter(kind))]
        raise UsageError(
            f"{uri}/ is no model that imgtx runs: expected a folder with {' or '.join(marks)} in it"
        )
    files = sorted(adapter.folder_files(listed, store.read, uri))
    version = _digest({file: listed[file] for file in files})
    note = cache_folder() / "files" / f"{_digest(f'{store.describe()}/ {adapter.PREFIX}')}.json"
    with _alone(note.with_suffix(".lock")):
        path = _noted(note, version, name, adapter)
        if path is None:
            path = _fetched(store, {file: listed[file] for file in files}, name, adapter)
            with whole_file(note) as temporary:
                facts = {"uri": uri, "version": version, "digest": path.parent.name}
                temporary.write_text(json.dumps(facts))
    above = uri.rpartition("/")[0]
    if not above.endswith("/"):
        fetch_sidecar(open_store(above, endpoint_url=endpoint_url), name, path)
    return f"{adapter.PREFIX}:{path}"


def _list(store: Store) -> Iterator:
    try:
        yield from store.list()
    except StorageError as error:
        if error.reason != "not_found":
            raise


def _fetched(store: Store, files: dict[str, tuple[int, str]], name: str, adapter: Adapter) -> Path:
    """Fetch `files`, with size and version as listed, into the cache, and return the folder there."""
    place = cache_folder() / "files"
    with writable_cache(but=place), tempfile.TemporaryDirectory(prefix=".", dir=place) as temporary:
        folder = Path(temporary, name)
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(partial(_fetch, store, files, folder), files))
        path = cache_folder() / adapter.digest(Source(adapter.PREFIX, folder)) / name
        path.parent.mkdir(exist_ok=True)
        # A copy that was damaged here.
        shutil.rmtree(path, ignore_errors=True)
        os.replace(folder, path)
        return path


def _fetch(store: Store, files: dict[str, tuple[int, str]], folder: Path, file: str) -> None:
    size, version = files[file]
    store.download(file, str(folder / file), version=version)
    if (got := (folder / file).stat().st_size) != size:
        raise ModelError(f"{store.uri.rstrip('/')}/{file} ended after {got} of {size} bytes: try again")


def _noted(note: Path, version: str, name: str, adapter: Adapter) -> Path | None:
    """Return the cached folder that was fetched as this version, if its content is still the same."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ImgtxError):
        known = json.loads(note.read_text())
        path = cache_folder() / known["digest"] / name
        if known["version"] == version and adapter.digest(Source(adapter.PREFIX, path)) == known["digest"]:
            # For what forgets models that are not used.
            os.utime(path)
            os.utime(note)
            return path
    return None


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock among the processes of this machine; the system releases those of processes that end."""
    with writable_cache(but=lock.parent):
        file = lock.open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
