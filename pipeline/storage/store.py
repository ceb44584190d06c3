"""Whole objects under one root, on local disk, S3, or anything that fsspec opens.

    store = open_store("s3://bucket/archive/")
    for batch in store.list():              # pyarrow, schema INVENTORY
        ...
    data = store.read("2019/a.jpg")         # one GET
    store.write("2019/a.png", data)         # whole or not at all

Nothing else in imgtx talks to storage. Every failure is a StorageError whose reason is one of the ledger's.
Credentials never enter a Store: the storage libraries read them from the environment of the process that makes the
request.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes, urlsplit

import fsspec
import pyarrow as pa

from imgtx.errors import UsageError
from pipeline.storage.attributes import PLAIN, Attributes
from pipeline.storage.backends import Backend, open_backend
from pipeline.storage.retry import DEFAULT_RETRY, RetryPolicy


@dataclass(frozen=True)
class Store:
    """Objects under a root, addressed by key: the path relative to the root, exactly as it is stored.

    Made by `open_store`. Picklable and cheap: the first request of each process opens the connection. Every method
    raises StorageError (reason not_found, forbidden, credentials or storage; unsafe_key for a key that no local file
    can have) after repeating a transient failure as `retry` says.
    """

    uri: str
    endpoint_url: str | None = None
    retry: RetryPolicy = DEFAULT_RETRY

    @property
    def is_local(self) -> bool:
        """Whether keys are paths of the local file system, with its limits on names."""
        return "://" not in self.uri

    def describe(self) -> str:
        """Return the root as messages and logs name it; holds no secret."""
        return f"{self.uri} at {self.endpoint_url}" if self.endpoint_url else self.uri

    def read(self, key: str, *, version: str = "") -> bytes:
        """Return all bytes of an object; exactly one GET on S3.

        With a `version`, as `list` returns it, an object of another version raises StorageError (reason changed).
        """
        return self._backend.read(key, version)

    def download(self, key: str, path: str, *, version: str = "") -> None:
        """Read an object into the local file `path`, streaming; after a failure the file's content is undefined."""
        self._backend.download(key, path, version)

    def write(self, key: str, data: bytes | memoryview, attributes: Attributes = PLAIN) -> None:
        """Store an object whole, durable on return: a reader gets the old bytes or the new, never a mixture.

        attributes: time and permissions of a local file; objects elsewhere have none.
        """
        self._backend.write(key, data, attributes)

    def upload(self, key: str, path: str, attributes: Attributes = PLAIN) -> None:
        """Write an object from a local file in bounded memory; on S3 a multipart upload, completed or aborted."""
        self._backend.upload(key, path, attributes)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless it exists; of any number of concurrent callers exactly one gets True."""
        return self._backend.create(key, data)

    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""
        self._backend.delete(key)

    def stat(self, key: str) -> tuple[int, str] | None:
        """Return (size in bytes, version) of an object, None where there is none; `version` as `list` returns it."""
        return self._backend.stat(key)

    def list(
        self, prefix: str = "", *, enters: Callable[[str], bool] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the objects whose key starts with `prefix`: batches of schema INVENTORY, in no particular order.

        enters: a folder for which it is false need not be listed. On disk it is then not opened, and stands in the
        listing itself, as a key that ends in a slash; elsewhere its objects may be listed all the same.

        Takes bounded memory on disk and S3. Leaves out folder markers, temporary names of imgtx, and everything that is
        not a regular file. In the key of a local file each byte that is not UTF-8 is U+001A and its hexadecimal. One
        whose metadata cannot be read is listed with size 0 and version "".
        """
        return self._backend.list(prefix, enters)

    def sweep(self, prefix: str) -> int:
        """Remove what killed writers left under `prefix`; returns how many.

        These are temporary files on disk and open multipart uploads on S3. Only call it while holding the lease, for
        prefixes to which nothing else writes.
        """
        return self._backend.sweep(prefix)

    def probe(self) -> None:
        """Make the cheapest request that shows that the root can be listed."""
        self._backend.probe()

    @property
    def _backend(self) -> Backend:
        return _backend_of(self)


@lru_cache(maxsize=32)
def _backend_of(store: Store) -> Backend:
    return open_backend(store.uri, store.endpoint_url, store.retry)


def forget_connections() -> None:
    """Let every store be opened anew: a forked process must not use the connections of the one it was forked from."""
    _backend_of.cache_clear()


def open_store(uri: str, *, endpoint_url: str | None = None) -> Store:
    """Return the Store at `uri`: a local path, `s3://bucket/prefix`, `memory://name`, or any scheme fsspec opens.

    `endpoint_url` (http:// or https://) applies to s3:// only; without it AWS_ENDPOINT_URL decides. Opens no
    connection. Raises UsageError for a URI that can never work.
    """
    if not uri:
        raise UsageError("an empty URI was given; give a folder, s3://bucket/prefix or another URI")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)", uri):
        raise UsageError(
            f"{uri} has one slash after its scheme; write s3://bucket/prefix, or ./{uri} for a folder"
        )
    if "://" not in uri:
        return Store(os.path.abspath(os.path.expanduser(uri)))
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return Store(_file_path(uri, rest))
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


def _file_path(uri: str, rest: str) -> str:
    """Return the path that a file:// URI names (RFC 8089): percent-decoded, on this host only."""
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise UsageError(
            f"{uri} names a file of the host {host!r}; only this machine's can be opened: write file:///PATH, or a path"
        )
    return os.path.abspath(os.fsdecode(unquote_to_bytes(f"/{path}")))


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
        # What is cut off may be a key.
        plain = endpoint_url.rpartition("@")[2].partition("?")[0].partition("#")[0]
        raise UsageError(
            f"the S3 endpoint {plain!r} is not a plain http:// or https:// address; write http://host:port, without "
            "credentials and without anything after ? or #"
        )
    return endpoint_url
