"""A reference to a model, wherever it lies, to a file on this machine: what `--model` means, on driver and workers.

    sr-x2, models/x.safetensors, spandrel:x.pth      this machine's already: unchanged
    s3://bucket/models/sr-x2@latest, models/sr-x2@3  a version in a model store
    sr-x2@latest                                     the same in the store that IMGTX_STORE names
    s3://bucket/x.safetensors, spandrel:s3://...     a file in storage, and its `<file>.imgtx.json` where one lies there

The driver asks `exact_reference` once, so that a whole run, and its retry, mean one version; every worker then asks
`local_model`. Files are kept under the user's cache folder by their SHA-256, put there whole, and summed up again
each time: a version's file against its card, a plain file against what was fetched. What nobody used for KEPT_DAYS
is removed when something new comes in: there is no other bound. Processes that start side by side on an empty cache
fetch the same file several times; one of them wins, and all have the same bytes.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from imgtx.errors import ModelError, StorageError, UsageError
from imgtx.files import replacing, user_cache
from imgtx.models.references import suffixes
from imgtx.models.weight_file import file_digest
from pipeline.models.store import LATEST, MODEL, ModelStore, Version, check_name
from pipeline.storage.store import Store, open_store

KEPT_DAYS = 30
SIDECAR = ".imgtx.json"  # what `imgtx models probe` lays beside somebody else's model
STORE_VARIABLE = "IMGTX_STORE"


@dataclass(frozen=True)
class InStore:
    """`STORE/NAME@VERSION`; the version is digits or "latest"."""

    store: str
    name: str
    version: str


@dataclass(frozen=True)
class InStorage:
    """One file by its URI. What stands before it and behind it is the business of an adapter."""

    uri: str
    prefix: str = ""
    query: str = ""


def parse_reference(reference: str) -> InStore | InStorage | None:
    """What has to be fetched for a reference, None for what this machine has already; UsageError where unclear."""
    remote = re.fullmatch(r"(?P<prefix>[a-z]+:)?(?P<uri>[A-Za-z][\w+.-]*://.*?)(?P<query>\?.*)?", reference)
    last = reference.rpartition("/")[2]
    if "@" in last and not last.partition("?")[0].endswith(suffixes()) and not os.path.exists(reference):
        return _in_store(reference)
    if remote is None or remote["uri"].startswith("file://"):
        if os.path.isdir(os.path.join(reference, LATEST)):
            raise UsageError(
                f"{reference} is a model in a store; write {reference}@{LATEST}, or @ and a version"
            )
        return None
    if not remote["uri"].endswith(suffixes()):
        raise UsageError(
            f"{reference} names no model; legal are STORE/NAME@latest, STORE/NAME@VERSION and files that end "
            f"in {' '.join(suffixes())}"
        )
    return InStorage(remote["uri"], remote["prefix"] or "", remote["query"] or "")


def _in_store(reference: str) -> InStore:
    place, _, version = reference.rpartition("@")
    if version != LATEST and not re.fullmatch(r"\d{1,9}", version):
        raise UsageError(f"{reference}: {version!r} is no version; write @{LATEST} or a number such as @0003")
    store, name = split_name(place)
    return InStore(store, name, version if version == LATEST else f"{int(version):04d}")


def split_name(place: str) -> tuple[str, str]:
    """`STORE/NAME` -> store, name; `NAME` alone is in the store that IMGTX_STORE names."""
    store, slash, name = place.rpartition("/")
    if not slash:
        store = os.environ.get(STORE_VARIABLE, "")
    check_name(name)
    if not store and not slash:
        raise UsageError(
            f"{place} names no model store: write STORE/{place}, or set {STORE_VARIABLE} to a folder or s3://bucket/prefix"
        )
    return store or "/", name


def exact_reference(reference: str, endpoint_url: str | None = None) -> str:
    """The reference with `latest` replaced by the version that it is now, and the store's absolute URI.

    Raises UsageError where there is no such model.
    """
    found = parse_reference(reference)
    if not isinstance(found, InStore):
        return reference
    store = open_store(found.store, endpoint_url=endpoint_url)
    number = found.version if found.version != LATEST else _latest_of(ModelStore(store), found.name)
    return f"{store.uri.rstrip('/')}/{found.name}@{number}"


def is_fetched(reference: str) -> bool:
    """Whether the model lies elsewhere than on this machine, under a name that means the same on every other."""
    return parse_reference(reference) is not None


def local_model(reference: str, endpoint_url: str | None = None) -> str:
    """What `imgtx` can open: packaged names and local paths unchanged, everything else as a checked local copy.

    Raises UsageError where there is no such model, ModelError for a file that is not what its card says, StorageError
    where the storage fails.
    """
    found = parse_reference(reference)
    if found is None:
        return reference
    if isinstance(found, InStorage):
        return found.prefix + str(_fetch_file(found.uri, endpoint_url)) + found.query
    models = ModelStore(open_store(found.store, endpoint_url=endpoint_url))
    number = found.version if found.version != LATEST else _latest_of(models, found.name)
    return str(fetch_version(models, models.version(found.name, number)))


def fetch_version(models: ModelStore, version: Version) -> Path:
    """The weight file of a version in the cache, its checksum checked now; so is its sidecar's, if it has one."""
    path = cache_folder() / version.digest / f"{version.name}@{version.number}.safetensors"
    for file, target in ((MODEL, path), (MODEL + SIDECAR, path.with_name(path.name + SIDECAR))):
        if file in version.files and not _is_sound(target, version.files[file]["sha256"]):
            _fetch_checked(models.store, version, file, target)
    return path


def _latest_of(models: ModelStore, name: str) -> str:
    latest = models.latest(name)
    if latest is None:
        numbers = models.numbers(name)
        held = (
            f"it has {', '.join(numbers)}"
            if numbers
            else f"the store has {', '.join(models.names()) or 'no model'}"
        )
        raise UsageError(
            f"{name} has no latest version in {models.store.describe()}; {held}: imgtx models promote sets it"
        )
    return latest.version


def _fetch_checked(store: Store, version: Version, file: str, target: Path) -> None:
    wanted = version.files[file]
    key = f"{version.name}/{version.number}/{file}"
    with _whole(target) as temporary:
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
                f"{wanted['sha256'][:12]}): it was truncated or overwritten; import it anew and promote that"
            )


def _fetch_file(uri: str, endpoint_url: str | None) -> Path:
    """A plain file: nobody vouches for its content, so the storage's word for its version decides what is current."""
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
        with _whole(cache_folder() / "files" / name) as temporary:
            store.download(name, str(temporary), version=version)
            if temporary.stat().st_size != size:
                raise ModelError(f"{uri} ended after {temporary.stat().st_size} of {size} bytes: try again")
            digest = file_digest(temporary)
            path = cache_folder() / digest / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, path)
        with _whole(note) as temporary:
            temporary.write_text(json.dumps({"uri": uri, "version": version, "digest": digest}))
    _fetch_sidecar(store, name, path)
    return path


def _fetch_sidecar(store: Store, name: str, path: Path) -> None:
    with _whole(path.with_name(name + SIDECAR)) as temporary, contextlib.suppress(FileNotFoundError):
        try:
            store.download(name + SIDECAR, str(temporary))
        except StorageError as error:
            if error.reason != "not_found":
                raise
            temporary.unlink()


def _noted(note: Path, version: str, name: str) -> Path | None:
    """The cached file that was fetched as this version, if it is still what it was then."""
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
            os.utime(path)  # for `_forget_unused`
            return True
    return False


@contextlib.contextmanager
def _whole(path: Path):
    """A temporary path beside `path`, which takes its place if it still exists in the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget_unused(cache_folder(), but=path.parent)
        with replacing(path, durable=False) as temporary:
            temporary.touch()
            yield temporary
    except OSError as error:
        raise ModelError(
            f"the model cache {cache_folder()} cannot be written ({error.strerror or error}): make room or give "
            "access, or set XDG_CACHE_HOME to another folder on every machine"
        ) from error


def _forget_unused(folder: Path, *, but: Path) -> None:
    limit = time.time() - KEPT_DAYS * 86_400
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # another process removes it too
            newest = max((file.stat().st_mtime for file in entry.iterdir()), default=limit)
            if entry != but and newest < limit:
                shutil.rmtree(entry)


def cache_folder() -> Path:
    """Where models are kept on this machine."""
    return user_cache() / "models"
