"""Copies of models on this machine, in the user's cache folder by their SHA-256.

Files are put there whole and their checksum is computed again at each use: a version's file against its card, a plain
file against what was fetched. What was not used for KEPT_DAYS is removed when something new comes in: there is no
other bound. Processes that start side by side on an empty cache fetch the same file several times; one of them wins,
and all have the same bytes.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from imgtx.errors import ModelError, StorageError, UsageError
from imgtx.files import replacing, user_cache
from imgtx.models.sidecar import SUFFIX as SIDECAR
from imgtx.models.weight_file import file_digest
from pipeline.models.store import MODEL, ModelStore, Version
from pipeline.storage.store import Store, open_store

KEPT_DAYS = 30


def fetch_version(models: ModelStore, version: Version) -> Path:
    """Return a version's weight file in the cache, its checksum and that of its sidecar checked now."""
    path = cache_folder() / version.digest / f"{version.name}@{version.number}.safetensors"
    for file, target in ((MODEL, path), (MODEL + SIDECAR, path.with_name(path.name + SIDECAR))):
        if file in version.files and not _is_sound(target, version.files[file]["sha256"]):
            _fetch_checked(models.store, version, file, target)
    return path


def _fetch_checked(store: Store, version: Version, file: str, target: Path) -> None:
    wanted = version.files[file]
    key = f"{version.name}/{version.number}/{file}"
    with whole_file(target) as temporary:
        store.download(key, str(temporary))
        size, digest = temporary.stat().st_size, file_digest(temporary)
        if digest != wanted["sha256"]:
            what = (
                f"it ends after {size} of {wanted['bytes']} bytes"
                if size < wanted["bytes"]
                else "other bytes"
            )
            raise ModelError(
                f"{store.uri.rstrip('/')}/{key} is not what its card says ({what}; SHA-256 {digest[:12]}, not "
                f"{wanted['sha256'][:12]}): it was truncated or overwritten; import it again and promote that"
            )


def fetch_file(uri: str, endpoint_url: str | None) -> Path:
    """Return a plain file in the cache, with its sidecar; the storage's version says whether the copy is current."""
    folder, _, name = uri.rpartition("/")
    store = open_store(folder, endpoint_url=endpoint_url)
    facts = store.stat(name)
    if facts is None:
        raise UsageError(
            f"no model at {uri}: check the name, or give STORE/NAME@latest for one in a model store"
        )
    size, version = facts
    note = (
        cache_folder() / "files" / f"{hashlib.sha256(f'{store.describe()} {name}'.encode()).hexdigest()}.json"
    )
    path = _noted(note, version, name)
    if path is None:
        with whole_file(cache_folder() / "files" / name) as temporary:
            store.download(name, str(temporary), version=version)
            if temporary.stat().st_size != size:
                raise ModelError(f"{uri} ended after {temporary.stat().st_size} of {size} bytes: try again")
            digest = file_digest(temporary)
            path = cache_folder() / digest / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # By hand: the file's final folder is its digest, which `replacing` would have to know before the download.
            os.replace(temporary, path)
        with whole_file(note) as temporary:
            temporary.write_text(json.dumps({"uri": uri, "version": version, "digest": digest}))
    fetch_sidecar(store, name, path)
    return path


def fetch_sidecar(store: Store, name: str, path: Path) -> None:
    """Put the sidecar of the model `name` beside its copy at `path`, where the storage has one."""
    with whole_file(path.with_name(name + SIDECAR)) as temporary, contextlib.suppress(FileNotFoundError):
        try:
            store.download(name + SIDECAR, str(temporary))
        except StorageError as error:
            if error.reason != "not_found":
                raise
            temporary.unlink()


def _noted(note: Path, version: str, name: str) -> Path | None:
    """Return the cached file that was fetched as this version, if its content is still the same."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text())
        path = cache_folder() / known["digest"] / name
        if known["version"] == version and _is_sound(path, known["digest"]):
            os.utime(note)
            return path
    return None


def _is_sound(path: Path, digest: str) -> bool:
    with contextlib.suppress(OSError):
        if file_digest(path) == digest:
            # For `_forget_unused`.
            os.utime(path)
            return True
    return False


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, which replaces it if it still exists at the end."""
    with writable_cache(but=path.parent), replacing(path, durable=False) as temporary:
        temporary.touch()
        yield temporary


@contextlib.contextmanager
def writable_cache(*, but: Path) -> Iterator[None]:
    """Make room in the cache, except in the folder `but`; ModelError where the cache cannot be written."""
    try:
        but.mkdir(parents=True, exist_ok=True)
        _forget_unused(cache_folder(), but=but)
        yield
    except OSError as error:
        raise ModelError(
            f"the model cache {cache_folder()} cannot be written ({error.strerror or error}): make room or give "
            "access, or set XDG_CACHE_HOME to another folder on every machine"
        ) from error


def _forget_unused(folder: Path, *, but: Path) -> None:
    limit = time.time() - KEPT_DAYS * 86_400
    for entry in folder.iterdir():
        # Another process may remove it too.
        with contextlib.suppress(OSError):
            newest = max((file.stat().st_mtime for file in entry.iterdir()), default=limit)
            if entry != but and newest < limit:
                shutil.rmtree(entry)


def cache_folder() -> Path:
    """Return the folder of models on this machine."""
    return user_cache() / "models"
