"""The back end for everything else that fsspec opens: `memory://`; `gs://` and others if installed.

Tested with `memory://`. With others it is as good as the file system's own `pipe_file`: writes are whole on object
stores, and `create` is only atomic where the file system implements `mode="create"` so.
"""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import fsspec
import pyarrow as pa

from imgtx.errors import StorageError, UsageError, first_line
from pipeline.storage.attributes import PLAIN, Attributes
from pipeline.storage.objects import is_hidden
from pipeline.storage.retry import Answer, RetryPolicy, retried
from pipeline.tables.schemas import INVENTORY

_BATCH = 8192
# Makes `create` atomic on the memory file system, which is one dictionary per process.
_CREATING = threading.Lock()


class FsspecFiles:
    """Objects under `uri`, through the file system that fsspec has for its scheme."""

    def __init__(self, uri: str, retry: RetryPolicy):
        try:
            self._fs, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        except Exception as error:
            # Each file system has exceptions of its own: a wrong name, no server, a missing option.
            raise UsageError(
                f"cannot open {uri}: {first_line(error)}; give a local path, s3://bucket/prefix or a URI that fsspec "
                "opens without further options"
            ) from error
        self._root = root.rstrip("/")
        self._retry = retry

    def probe(self) -> None:
        self._ask("list", "", lambda: self._fs.exists(self._root))

    def read(self, key: str, version: str) -> bytes:
        # Checking `version` would cost another request: not every file system returns it with the data.
        return self._ask("read", key, lambda: self._fs.cat_file(self._path(key)))

    def download(self, key: str, target: str, version: str) -> None:
        self._ask("read", key, lambda: self._fs.get_file(self._path(key), target))

    def write(self, key: str, data: bytes | memoryview, attributes: Attributes = PLAIN) -> None:
        self._ask("write", key, lambda: self._fs.pipe_file(self._path(key), data))

    def upload(self, key: str, source: str, attributes: Attributes = PLAIN) -> None:
        if os.path.getsize(source) == 0:
            # On some file systems put_file of an empty file makes a directory.
            return self.write(key, b"")
        return self._ask("write", key, lambda: self._fs.put_file(source, self._path(key)))

    def create(self, key: str, data: bytes) -> bool:
        def create() -> bool:
            try:
                self._fs.pipe_file(self._path(key), data, mode="create")
            except FileExistsError:
                return False
            return True

        with _CREATING:
            return self._ask("write", key, create)

    def delete(self, key: str) -> None:
        def remove() -> None:
            try:
                self._fs.rm_file(self._path(key))
            except FileNotFoundError:
                return

        self._ask("delete", key, remove)

    def stat(self, key: str) -> tuple[int, str] | None:
        def look() -> dict[str, Any] | None:
            try:
                return self._fs.info(self._path(key))
            except FileNotFoundError:
                return None

        info = self._ask("stat", key, look)
        return (info["size"], _version(info)) if info and info["type"] == "file" else None

    def list(self, prefix: str, enters: Callable[[str], bool] | None = None) -> Iterator[pa.RecordBatch]:
        folder = f"{self._root}/{prefix.rpartition('/')[0]}".rstrip("/")
        found = self._ask("list", prefix, partial(self._find, folder))
        start = len(self._root) + 1
        rows = [
            (path[start:], info["size"], _version(info))
            for path, info in found.items()
            if path.startswith(f"{self._root}/{prefix}") and not is_hidden(path)
        ]
        for first in range(0, len(rows), _BATCH):
            columns = zip(*rows[first : first + _BATCH], strict=True)
            yield pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=INVENTORY)

    def _find(self, folder: str) -> dict[str, dict[str, Any]]:
        found = self._fs.find(folder, detail=True)
        if not found:
            # `find` leaves out what it cannot list, and where the server does not answer that is everything.
            try:
                self._fs.ls(folder, detail=False)
            except FileNotFoundError:
                return {}
        return found

    def sweep(self, prefix: str) -> int:
        # Writes here use no temporary names.
        return 0

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _ask(self, verb: str, key: str, call: Callable[[], Answer]) -> Answer:
        return retried(call, partial(_explain, verb, self._path(key)), self._retry)


def _version(info: dict[str, Any]) -> str:
    for name in ("ETag", "etag", "md5Hash", "content_md5", "created", "mtime", "LastModified", "updated"):
        if (value := info.get(name)) is not None:
            # The memory file system's `find` returns seconds where its `info` returns a datetime.
            stamp = value.timestamp() if hasattr(value, "timestamp") else value
            return str(stamp).strip('"') + f"-{info['size']}"
    return str(info["size"])


def _explain(verb: str, path: str, error: Exception) -> StorageError:
    """Return the StorageError for what a file system raised; its calls hold no code of imgtx, so it is never a bug."""
    given = f"cannot {verb} {path}: {first_line(error)}"
    if isinstance(error, FileNotFoundError):
        return StorageError("not_found", f"{given}; there must be an object with this key: check the name")
    if isinstance(error, PermissionError):
        return StorageError("forbidden", f"{given}; these credentials need access: ask the owner for it")
    if isinstance(error, (ConnectionError, TimeoutError)):
        return StorageError("storage", f"{given}; the storage must answer: run again", transient=True)
    # Each file system has exceptions of its own, such as those of its HTTP client, which may not last.
    foreign = type(error).__module__ != "builtins"
    if isinstance(error, OSError) and not foreign:
        return StorageError("storage", f"{given}; check the storage and run again")
    return StorageError(
        "storage",
        f"{given}; the storage must answer: check the URI and the network, and run again",
        transient=foreign,
    )
