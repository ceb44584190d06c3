"""The back end for local disk: atomic writes and a streaming tree walk.

A write fills a temporary file in the same directory, then fsync, rename, fsync of the directory. A crash leaves the
old object or the new one whole, and at worst a temporary file that `sweep` removes.
"""

import contextlib
import errno
import os
import shutil
import stat as modes
import uuid
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

import pyarrow as pa

from imgtx.errors import StorageError
from imgtx.files import sync_folder
from pipeline.storage.attributes import PLAIN, Attributes, restrict_group, set_time
from pipeline.storage.objects import TEMPORARY, as_name, as_text, check_version
from pipeline.storage.retry import Answer, RetryPolicy, retried
from pipeline.tables.schemas import INVENTORY, NO_SPACE, UNSAFE_KEY

_BATCH = 8192
_TRANSIENT = {errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


class LocalFiles:
    """Objects as files under the directory `root`, an absolute path."""

    def __init__(self, root: str, retry: RetryPolicy):
        self._root = root
        self._retry = retry

    def probe(self) -> None:
        def first_entry() -> None:
            with os.scandir(self._root) as entries:
                next(entries, None)

        self._ask("list", self._root, first_entry)

    def read(self, key: str, version: str) -> bytes:
        path = self._path(key)

        def whole_file() -> bytes:
            with open(path, "rb") as file:
                data = file.read()
                check_version(as_text(path), _facts(os.fstat(file.fileno()))[1], version)
                return data

        return self._ask("read", path, whole_file)

    def download(self, key: str, target: str, version: str) -> None:
        path = self._path(key)

        def copy() -> None:
            with open(path, "rb") as file, open(target, "wb") as copied:
                shutil.copyfileobj(file, copied, 1 << 20)
                check_version(as_text(path), _facts(os.fstat(file.fileno()))[1], version)

        self._ask("read", path, copy)

    def write(self, key: str, data: bytes | memoryview, attributes: Attributes = PLAIN) -> None:
        self._put(key, partial(_fill, data), _replace, attributes)

    def upload(self, key: str, source: str, attributes: Attributes = PLAIN) -> None:
        # Copied even on one device: a rename would keep the spool file's private mode.
        def copy(file: BinaryIO) -> int:
            digest = 0
            with open(source, "rb") as spooled:
                while data := spooled.read(1 << 20):
                    digest = zlib.crc32(data, digest)
                    file.write(data)
            return digest

        self._put(key, copy, _replace, attributes)

    def create(self, key: str, data: bytes) -> bool:
        return self._put(key, partial(_fill, data), _link_if_absent, PLAIN)

    def delete(self, key: str) -> None:
        path = self._path(key)

        def unlink() -> None:
            try:
                os.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                return
            sync_folder(os.path.dirname(path))

        self._ask("delete", path, unlink)

    def stat(self, key: str) -> tuple[int, str] | None:
        path = self._path(key)

        def look() -> os.stat_result | None:
            try:
                return os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None

        status = self._ask("stat", path, look)
        return _facts(status) if status is not None and modes.S_ISREG(status.st_mode) else None

    def list(self, prefix: str, enters: Callable[[str], bool] | None = None) -> Iterator[pa.RecordBatch]:
        rows: list[tuple[str, int, str]] = []
        for key, entry in self._walk(as_name(prefix), enters):
            if entry.name.startswith(TEMPORARY):
                continue
            if key.endswith("/"):
                rows.append((as_text(key), 0, ""))
            elif facts := self._listed(entry):
                rows.append((as_text(key), *facts))
            if len(rows) >= _BATCH:
                yield _batch(rows)
                rows = []
        if rows:
            yield _batch(rows)

    def _listed(self, entry: os.DirEntry[str]) -> tuple[int, str] | None:
        """Return size and version of an entry that is not a directory; None for what is not a regular file."""
        try:
            status = entry.stat()
        except OSError:
            # A dangling link, or a file that this user cannot look at: listed, so that reading it gives the reason.
            return 0, ""
        # A FIFO or a device would block its reader.
        return _facts(status) if modes.S_ISREG(status.st_mode) else None

    def sweep(self, prefix: str) -> int:
        swept = 0
        for _, entry in self._walk(prefix):
            if entry.name.startswith(TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    self._ask("sweep", entry.path, partial(os.unlink, entry.path))
                    swept += 1
        return swept

    def _walk(
        self, prefix: str, enters: Callable[[str], bool] | None = None
    ) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield (key, entry) for everything but directories below the root whose key starts with `prefix`.

        Follows linked directories except to their own ancestors, as `find -L` does. Keeps one directory open at a time
        and none in memory. A directory for which `enters` is false is not opened; its key is yielded with a slash.
        """
        folders = [prefix.rpartition("/")[0]]
        while folders:
            folder = folders.pop()
            path = os.path.join(self._root, folder) if folder else self._root
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        key = f"{folder}/{entry.name}" if folder else entry.name
                        if not key.startswith(prefix):
                            continue
                        if not _is_directory(entry):
                            yield key, entry
                        elif enters and not enters(as_text(key)):
                            yield f"{key}/", entry
                        elif not (entry.is_symlink() and self._is_loop(folder, entry)):
                            folders.append(key)
            except OSError as error:
                gone = isinstance(error, (FileNotFoundError, NotADirectoryError))
                if gone and (prefix or folder):
                    # Nothing is under this prefix yet, or it was removed since its parent was read.
                    continue
                raise _failure("list", path, error) from error

    def _is_loop(self, folder: str, link: os.DirEntry[str]) -> bool:
        target = os.stat(link.path)
        parts = folder.split("/") if folder else []
        ancestors = (os.path.join(self._root, *parts[:depth]) for depth in range(len(parts) + 1))
        return any(os.path.samestat(target, os.stat(ancestor)) for ancestor in ancestors)

    def _put(
        self,
        key: str,
        fill: Callable[[BinaryIO], int],
        commit: Callable[[str, str], bool],
        attributes: Attributes,
    ) -> bool:
        """Write a file whole. `fill` returns a checksum of what it wrote."""
        path = self._path(key)
        folder = os.path.dirname(path)

        def put() -> bool:
            temporary = os.path.join(folder, f"{TEMPORARY}{uuid.uuid4().hex}")
            _make_directories(folder)
            try:
                with open(temporary, "xb", opener=partial(os.open, mode=attributes.mode)) as file:
                    restrict_group(file.fileno(), attributes)
                    digest = fill(file)
                    file.flush()
                    if attributes.modified is not None:
                        set_time(file.fileno(), attributes.modified, digest)
                    os.fsync(file.fileno())
                committed = commit(temporary, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
            sync_folder(folder)
            return committed

        return self._ask("write", path, put)

    def _ask(self, verb: str, path: str, call: Callable[[], Answer]) -> Answer:
        return retried(call, partial(_explain, verb, path), self._retry)

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if "\0" in key or any(part in ("", ".", "..") for part in parts):
            raise StorageError(
                UNSAFE_KEY,
                f"the key {key!r} cannot be a file under {self._root}; a key is file names joined by single "
                "slashes: rename the object",
            )
        return os.path.join(self._root, *map(as_name, parts))


def _fill(data: bytes | memoryview, file: BinaryIO) -> int:
    file.write(data)
    return zlib.crc32(data)


def _replace(temporary: str, path: str) -> bool:
    os.replace(temporary, path)
    return True


def _link_if_absent(temporary: str, path: str) -> bool:
    try:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # exFAT and some network mounts: still exclusive, though a reader may see part of the bytes.
            with open(path, "xb") as file, open(temporary, "rb") as whole:
                shutil.copyfileobj(whole, file)
                file.flush()
                os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


def _make_directories(folder: str) -> None:
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_directories(parent)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
    sync_folder(parent)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _facts(status: os.stat_result) -> tuple[int, str]:
    return status.st_size, f"{status.st_mtime_ns}-{status.st_size}"


def _batch(rows: list[tuple[str, int, str]]) -> pa.RecordBatch:
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=INVENTORY)


def _explain(verb: str, path: str, error: Exception) -> StorageError | None:
    return _failure(verb, path, error) if isinstance(error, OSError) else None


def _loop_in(path: str) -> str:
    """Return the symbolic link in `path` that leads back to itself, and what it says: `a/b -> b`; "" if none does."""
    steps = [path]
    while (above := os.path.dirname(steps[-1])) != steps[-1]:
        steps.append(above)
    for step in reversed(steps):
        try:
            os.stat(step)
        except OSError as error:
            if error.errno == errno.ELOOP and os.path.islink(step):
                return f"{step} -> {os.readlink(step)}"
            return ""
    return ""


def _failure(verb: str, path: str, error: OSError) -> StorageError:
    # Valid Unicode, because it goes into the ledger.
    given = f"cannot {verb} {as_text(path)}: {error.strerror or error}"
    number = error.errno
    if verb == "write" and (number == errno.EILSEQ or (number == errno.EINVAL and not path.isprintable())):
        return StorageError(
            UNSAFE_KEY, f"{given}; the file system there does not take every name: rename the file"
        )
    if number in (errno.ENOENT, errno.EISDIR) or (number == errno.ENOTDIR and verb != "write"):
        return StorageError("not_found", f"{given}; there must be a file with this name: check it")
    if verb == "write" and number in _FULL:
        return StorageError(NO_SPACE, f"{given}; it must have room: free some space and run again")
    if verb == "write" and number == errno.EROFS:
        return StorageError(NO_SPACE, f"{given}; it must be writable: check the mount and run again")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError("forbidden", f"{given}; this user needs access: change its permissions or owner")
    if number in _FULL:
        # Where a large image is kept while it is worked on.
        return StorageError("storage", f"{given}; the disk must have room: free some space and run again")
    if number in (errno.ENOTDIR, errno.EEXIST):
        return StorageError("storage", f"{given}; there is a file where a folder is needed: move it")
    if number == errno.ELOOP and (loop := _loop_in(path)):
        return StorageError(
            "storage", f"{given}; {as_text(loop)} must lead to a file or folder: change or remove the link"
        )
    again = "run again" if number in _TRANSIENT else "check the disk and its mount"
    return StorageError("storage", f"{given}; {again}", transient=number in _TRANSIENT)
