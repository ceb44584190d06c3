"""What a model reference means, before anything is asked of storage.

    sr-x2, models/x.safetensors, spandrel:x.pth      on this machine already
    s3://bucket/models/sr-x2@latest, models/sr-x2@3  a version in a model store
    sr-x2@latest                                     the same in the store that IMGTX_STORE names
    s3://bucket/x.safetensors, spandrel:s3://...     a file in storage
    s3://bucket/sana/, diffusers:s3://bucket/sana    a folder in storage

`pipeline.models.resolve` asks the storage.
"""

import os
import re
from dataclasses import dataclass

from imgtx.errors import UsageError
from imgtx.models.references import folder_adapter, suffixes
from pipeline.models.store import LATEST, check_name

STORE_VARIABLE = "IMGTX_STORE"


@dataclass(frozen=True)
class InStore:
    """`STORE/NAME@VERSION`; the version is digits or "latest"."""

    store: str
    name: str
    version: str


@dataclass(frozen=True)
class InStorage:
    """One file or folder by its URI; the prefix and the query around it are the adapter's."""

    uri: str
    prefix: str = ""
    query: str = ""
    folder: bool = False


def parse_reference(reference: str) -> InStore | InStorage | None:
    """Return what has to be fetched, None for what is on this machine; UsageError where that is unclear."""
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
    prefix = remote["prefix"] or ""
    if folder_adapter(prefix.rstrip(":")) or (not prefix and remote["uri"].endswith("/")):
        return InStorage(remote["uri"].rstrip("/"), prefix, remote["query"] or "", folder=True)
    if not remote["uri"].endswith(suffixes()):
        raise UsageError(
            f"{reference} names no model: expected STORE/NAME@latest, STORE/NAME@VERSION, a folder that ends in / or a "
            f"file that ends in one of {' '.join(suffixes())}"
        )
    return InStorage(remote["uri"], prefix, remote["query"] or "")


def _in_store(reference: str) -> InStore:
    place, _, version = reference.rpartition("@")
    if version != LATEST and not re.fullmatch(r"\d{1,9}", version):
        raise UsageError(
            f"{reference}: {version!r} is not a version: write @{LATEST} or a number such as @0003"
        )
    store, name = split_name(place)
    return InStore(store, name, version if version == LATEST else f"{int(version):04d}")


def split_name(place: str) -> tuple[str, str]:
    """Split `STORE/NAME`; `NAME` alone is in the store that IMGTX_STORE names."""
    store, slash, name = place.rpartition("/")
    if not slash:
        store = os.environ.get(STORE_VARIABLE, "")
    check_name(name)
    if not store and not slash:
        raise UsageError(
            f"{place} names no model store: write STORE/{place}, or set {STORE_VARIABLE} to a folder or s3://bucket/prefix"
        )
    return store or "/", name


def is_fetched(reference: str) -> bool:
    """Return whether the model is in storage, under a name that means the same on every machine."""
    return parse_reference(reference) is not None
