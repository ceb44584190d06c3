"""The back ends of a Store, by scheme: a new one is a file and a line in BACKENDS.

Each is imported when a store of its scheme is first used, so that a local run does without s3fs.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import pyarrow as pa

from pipeline.storage.attributes import PLAIN, Attributes
from pipeline.storage.retry import RetryPolicy


class Backend(Protocol):
    """What a back end does; `pipeline.storage.store.Store` documents each method."""

    def probe(self) -> None: ...

    def read(self, key: str, version: str) -> bytes: ...

    def download(self, key: str, target: str, version: str) -> None: ...

    def write(self, key: str, data: bytes | memoryview, attributes: Attributes = PLAIN) -> None: ...

    def upload(self, key: str, source: str, attributes: Attributes = PLAIN) -> None: ...

    def create(self, key: str, data: bytes) -> bool: ...

    def delete(self, key: str) -> None: ...

    def stat(self, key: str) -> tuple[int, str] | None: ...

    def list(self, prefix: str, enters: Callable[[str], bool] | None = None) -> Iterator[pa.RecordBatch]: ...

    def sweep(self, prefix: str) -> int: ...


def _local(uri: str, endpoint_url: str | None, retry: RetryPolicy) -> Backend:
    from pipeline.storage.local import LocalFiles

    return LocalFiles(uri, retry)


def _s3(uri: str, endpoint_url: str | None, retry: RetryPolicy) -> Backend:
    from pipeline.storage.s3 import S3Objects

    bucket, _, root = uri.removeprefix("s3://").partition("/")
    return S3Objects(bucket, root, endpoint_url, retry)


def _fsspec(uri: str, endpoint_url: str | None, retry: RetryPolicy) -> Backend:
    from pipeline.storage.fsspec import FsspecFiles

    return FsspecFiles(uri, retry)


# By scheme, "" for a local path. Every other scheme is opened through fsspec.
BACKENDS: dict[str, Callable[[str, str | None, RetryPolicy], Backend]] = {"": _local, "s3": _s3}


def open_backend(uri: str, endpoint_url: str | None, retry: RetryPolicy) -> Backend:
    """Return the back end for a store's URI; opens no connection."""
    scheme = uri.partition("://")[0] if "://" in uri else ""
    return BACKENDS.get(scheme, _fsspec)(uri, endpoint_url, retry)
