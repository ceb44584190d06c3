"""Checks of a job's stores before it starts; each raises UsageError within seconds."""

import logging
import os
import uuid
from dataclasses import replace

from imgtx.errors import StorageError, UsageError
from pipeline.storage.objects import TEMPORARY
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store
from pipeline.tables.schemas import IMAGES, LEASES

_log = logging.getLogger(__name__)


def check_source(store: Store, what: str = "the source") -> None:
    """Raise UsageError unless the source can be listed. An empty source passes."""
    if store.is_local and os.path.isfile(store.uri):
        raise UsageError(f"{what} {store.uri} is a file; a source is a folder: give the folder that holds it")
    if store.is_local and not os.path.exists(store.uri):
        raise UsageError(f"{what} cannot be read: there is no folder {store.uri}; check the path")
    try:
        replace(store, retry=FAIL_FAST).probe()
    except StorageError as error:
        raise UsageError(f"{what} cannot be read: {error}") from error


def check_destination(store: Store) -> None:
    """Raise UsageError unless objects can be created, listed and deleted at the destination.

    Writes one small object and removes it; creates a local folder that is missing. Logs a warning where the storage
    overwrites objects in spite of a condition, because a lease cannot keep a second run out there.
    """
    if store.is_local and os.path.isfile(store.uri):
        raise UsageError(f"the destination {store.uri} is a file; give a folder, which may be new")
    fail_fast = replace(store, retry=FAIL_FAST)
    key = f"{LEASES}{TEMPORARY}probe-{uuid.uuid4().hex}"
    try:
        fail_fast.create(key, b"imgtx")
        exclusive = not fail_fast.create(key, b"imgtx again")
        fail_fast.probe()
        fail_fast.delete(key)
    except StorageError as error:
        raise UsageError(f"the destination {store.uri} cannot be written: {error}") from error
    if not exclusive:
        _log.warning(
            "%s ignores If-None-Match: a second run on this destination will not be noticed; start only one",
            store.describe(),
        )


def check_shared(store: Store) -> None:
    """Raise UsageError for storage that other processes cannot see: workers' outputs would be lost with them."""
    if store.uri.startswith("memory://"):
        raise UsageError(
            f"{store.uri} is in the memory of one process, and a run has many; give a folder, s3://bucket/prefix "
            "or another storage that all of them reach"
        )


def check_apart(source: Store, destination: Store, *, never_listed: bool = False) -> None:
    """Raise UsageError where outputs would be listed as inputs, or overwrite them.

    never_listed: whether the destination is in a part of the source that is not listed.
    """
    if not never_listed and same_or_inside(source, destination):
        raise UsageError(
            f"the destination {destination.describe()} is inside the source {source.describe()}; outputs would "
            "become inputs: give a destination outside the source"
        )
    images = replace(destination, uri=f"{destination.uri.rstrip('/')}/{IMAGES}")
    if same_or_inside(images, source):
        raise UsageError(
            f"the source {source.describe()} is inside the images of the destination {destination.describe()}; "
            "outputs would overwrite inputs: give another destination"
        )


def same_or_inside(outer: Store, inner: Store) -> bool:
    """Return whether the root of `inner` is that of `outer` or below it, with links and case treated as by the disk."""
    if outer.is_local != inner.is_local:
        return False
    if not outer.is_local:
        return _endpoint(outer) == _endpoint(inner) and f"{inner.uri.rstrip('/')}/".startswith(
            f"{outer.uri.rstrip('/')}/"
        )
    path, target = os.path.realpath(inner.uri), os.path.realpath(outer.uri)
    while path != target:
        if os.path.exists(path) and os.path.exists(target) and os.path.samefile(path, target):
            return True
        if path == os.path.dirname(path):
            return False
        path = os.path.dirname(path)
    return True


def place_in(outer: Store, inner: Store) -> str | None:
    """Return which folder of `outer` the root of `inner` is, "" for its root; None where it is not inside."""
    if not same_or_inside(outer, inner):
        return None
    if outer.is_local:
        place = os.path.relpath(os.path.realpath(inner.uri), os.path.realpath(outer.uri))
        return "" if place == os.curdir else place
    return inner.uri.rstrip("/")[len(outer.uri.rstrip("/")) + 1 :]


def _endpoint(store: Store) -> str | None:
    if not store.uri.startswith("s3://"):
        return None
    default = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return (store.endpoint_url or default or "").rstrip("/")
