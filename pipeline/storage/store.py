"""The only door to storage: whole objects under one root, on local disk, S3, or anything fsspec opens.

    store = open_store("s3://bucket/archive/")
    for batch in store.list():              # pyarrow, schema INVENTORY
        ...
    data = store.read("2019/a.jpg")         # one GET
    store.write("2019/a.png", data)         # whole or not at all

Each back end is a file: `storage_local`, `storage_s3`, `storage_fsspec`; `storage_retry` says when to ask
again. Every failure is a StorageError whose reason is a word of the ledger. Credentials never enter a Store:
the storage libraries read them from the environment of the process that asks.
"""

import logging
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa

from imgtx.errors import StorageError, UsageError
from pipeline.storage.retry import HASTY, PATIENT, TEMPORARY, Patience
from pipeline.tables.schemas import IMAGES, LEASES

if TYPE_CHECKING:
    from pipeline.storage.fsspec import FsspecFiles
    from pipeline.storage.local import LocalFiles
    from pipeline.storage.s3 import S3Objects

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """Objects under a root, addressed by key: the path relative to the root, exactly as it is stored.

    Picklable and cheap: the connection is opened by the first request in each process. Make one with
    `open_store`. Every method raises StorageError (reasons not_found, forbidden, credentials, storage; unsafe_key
    for a key that no local file can have) after asking again for as long as `patience` says.
    """

    uri: str
    endpoint_url: str | None = None
    patience: Patience = PATIENT

    @property
    def is_local(self) -> bool:
        """Whether keys are paths of the local file system, with its limits on names."""
        return "://" not in self.uri

    def describe(self) -> str:
        """The root for people and logs; holds no secret."""
        return f"{self.uri} at {self.endpoint_url}" if self.endpoint_url else self.uri

    def read(self, key: str, *, version: str = "") -> bytes:
        """All bytes of an object; exactly one GET on S3.

        Where a `version` is given, as `list` says it, an object of another is a StorageError (reason changed).
        """
        return self._backend.read(key, version)

    def download(self, key: str, path: str, *, version: str = "") -> None:
        """`read` into the local file `path`, streaming; after a failure its content is undefined."""
        self._backend.download(key, path, version)

    def write(self, key: str, data: bytes | memoryview) -> None:
        """Put an object whole, durable on return: a reader meets the old bytes or the new, never a part."""
        self._backend.write(key, data)

    def upload(self, key: str, path: str) -> None:
        """`write` from a local file in bounded memory; on S3 a multipart upload, completed or aborted."""
        self._backend.upload(key, path)

    def create(self, key: str, data: bytes) -> bool:
        """`write` unless the object exists; of any number of racers exactly one is answered True."""
        return self._backend.create(key, data)

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""
        self._backend.delete(key)

    def stat(self, key: str) -> tuple[int, str] | None:
        """(size in bytes, version) of an object, None where there is none; `version` as `list` gives it."""
        return self._backend.stat(key)

    def list(self, prefix: str = "") -> Iterator[pa.RecordBatch]:
        """Objects whose key starts with `prefix`, in batches of schema INVENTORY and in no promised order.

        Bounded memory on disk and S3. Leaves out folder markers, our own temporary names, and whatever is
        no regular file. A name that is not UTF-8 is listed with U+001A and hexadecimal in place of each bad
        byte. A local file that cannot be looked at is listed with size 0 and version "".
        """
        return self._backend.list(prefix)

    def sweep(self, prefix: str) -> int:
        """Remove what killed writers left under `prefix`; returns how many.

        Temporary files on disk, open multipart uploads on S3. Call it while holding the lease, for prefixes that
        nobody else writes to.
        """
        return self._backend.sweep(prefix)

    def probe(self) -> None:
        """The cheapest request that shows the root can be listed."""
        self._backend.probe()

    @property
    def _backend(self) -> "LocalFiles | S3Objects | FsspecFiles":
        return _backend_of(self)


@lru_cache(maxsize=32)
def _backend_of(store: Store) -> "LocalFiles | S3Objects | FsspecFiles":
    if store.is_local:
        from pipeline.storage.local import LocalFiles

        return LocalFiles(store.uri, store.patience)
    if store.uri.startswith("s3://"):
        from pipeline.storage.s3 import S3Objects

        bucket, _, root = store.uri.removeprefix("s3://").partition("/")
        return S3Objects(bucket, root, store.endpoint_url, store.patience)
    from pipeline.storage.fsspec import FsspecFiles

    return FsspecFiles(store.uri, store.patience)


def open_store(uri: str, *, endpoint_url: str | None = None) -> Store:
    """The Store at `uri`: a local path, `s3://bucket/prefix`, `memory://name`, or any scheme fsspec opens.

    `endpoint_url` (http:// or https://) is for s3:// alone, and without it AWS_ENDPOINT_URL decides. Opens no
    connection. Raises UsageError for a URI that can never work.
    """
    if not uri:
        raise UsageError("an empty URI was given; give a folder, s3://bucket/prefix or another URI")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)", uri):
        raise UsageError(
            f"{uri} has one slash after its scheme; write s3://bucket/prefix, or ./{uri} for a folder"
        )
    if "://" not in uri or uri.startswith("file://"):
        path = uri.removeprefix("file://")
        return Store(os.path.abspath(os.path.expanduser(path)))
    scheme, _, rest = uri.partition("://")
    netloc = rest.partition("/")[0]
    if "@" in netloc:
        raise UsageError(
            f"the {scheme}:// URI holds credentials before {netloc.rpartition('@')[2]!r}; a URI is written "
            "to logs and specs: put credentials in the environment"
        )
    if scheme in ("http", "https") and "?" in rest:
        raise UsageError(
            f"the {scheme}:// URI of {netloc!r} has a query, which often holds a key; a URI is written to logs and "
            "specs: give one without"
        )
    if scheme in ("s3", "s3a"):
        return Store(_s3_uri(uri, rest), _checked_endpoint(endpoint_url))
    try:
        fsspec.get_filesystem_class(scheme)
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"cannot open {uri}: {error}; give a local path, s3://bucket/prefix or a scheme whose fsspec "
            "package is installed"
        ) from error
    return Store(f"{uri.rstrip('/')}/" if rest.strip("/") else uri)


def check_source(store: Store, what: str = "the source") -> None:
    """Raise UsageError, within seconds, unless the source can be listed. An empty source passes."""
    if store.is_local and os.path.isfile(store.uri):
        raise UsageError(f"{what} {store.uri} is a file; a source is a folder: give the one it lies in")
    if store.is_local and not os.path.exists(store.uri):
        raise UsageError(f"{what} cannot be read: there is no folder {store.uri}; check the path")
    try:
        replace(store, patience=HASTY).probe()
    except StorageError as error:
        raise UsageError(f"{what} cannot be read: {error}") from error


def check_destination(store: Store) -> None:
    """Raise UsageError, within seconds, unless objects can be created, listed and deleted at the destination.

    Puts one small object and removes it; makes a local folder that is missing. Warns where the storage
    overwrites in spite of a condition, because a lease cannot keep a second run out there.
    """
    if store.is_local and os.path.isfile(store.uri):
        raise UsageError(f"the destination {store.uri} is a file; give a folder, which may be new")
    hasty = replace(store, patience=HASTY)
    key = f"{LEASES}{TEMPORARY}probe-{uuid.uuid4().hex}"
    try:
        hasty.create(key, b"imgtx")
        exclusive = not hasty.create(key, b"imgtx again")
        hasty.probe()
        hasty.delete(key)
    except StorageError as error:
        raise UsageError(f"the destination {store.uri} cannot be written: {error}") from error
    if not exclusive:
        _log.warning(
            "%s ignores If-None-Match: a second run on this destination will not be noticed; start only one",
            store.describe(),
        )


def check_shared(store: Store) -> None:
    """Raise UsageError for storage that other processes do not see: the workers' outputs would end with them."""
    if store.uri.startswith("memory://"):
        raise UsageError(
            f"{store.uri} lies in the memory of one process, and a run has many; give a folder, s3://bucket/prefix "
            "or another storage that all of them reach"
        )


def check_apart(source: Store, destination: Store) -> None:
    """Raise UsageError where outputs would be listed as inputs, or overwrite them."""
    if same_or_inside(source, destination):
        raise UsageError(
            f"the destination {destination.describe()} lies in the source {source.describe()}; outputs would "
            "become inputs: give a destination outside the source"
        )
    images = replace(destination, uri=f"{destination.uri.rstrip('/')}/{IMAGES}")
    if same_or_inside(images, source):
        raise UsageError(
            f"the source {source.describe()} lies in the images of the destination {destination.describe()}; "
            "outputs would overwrite inputs: give another destination"
        )


def same_or_inside(outer: Store, inner: Store) -> bool:
    """Whether the root of `inner` is the root of `outer` or lies below it; sees through links and case."""
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


def _s3_uri(uri: str, rest: str) -> str:
    bucket, _, root = rest.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]+", bucket):
        raise UsageError(
            f"{uri} names the bucket {bucket!r}; a bucket has letters, digits, dots and hyphens: "
            "write s3://bucket/prefix"
        )
    root = root.rstrip("/")
    return f"s3://{bucket}/{root}/" if root else f"s3://{bucket}/"


def _checked_endpoint(endpoint_url: str | None) -> str | None:
    if endpoint_url is None:
        return None
    parts = urlsplit(endpoint_url)
    more = "@" in parts.netloc or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or more:
        plain = (
            endpoint_url.rpartition("@")[2].partition("?")[0].partition("#")[0]
        )  # what follows may be a key
        raise UsageError(
            f"the S3 endpoint {plain!r} is no plain http:// or https:// address; write http://host:port, without "
            "credentials and without anything after ? or #"
        )
    return endpoint_url


def _endpoint(store: Store) -> str | None:
    if not store.uri.startswith("s3://"):
        return None
    default = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return (store.endpoint_url or default or "").rstrip("/")
