"""Files written whole or not at all, and the user's cache folder."""

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def write_atomically(path: Path, data: bytes | str | Callable[[Path], object], *, durable: bool) -> None:
    """Write a file so that it is always either the old one or the whole new one.

    data: the content (text as UTF-8), or a function that writes it to the path it gets. durable: return only when the
    content and its name are on the disk, so that they outlast a power failure. Raises OSError.
    """
    with replacing(path, durable=durable) as temporary:
        if callable(data):
            data(temporary)
        else:
            temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool) -> Iterator[Path]:
    """Give a temporary path beside `path` that replaces it at the end, if there is a file then.

    Nothing is left of it after an exception. Its name is new each time, so that two processes may write one file;
    what a killed process leaves is removed by `remove_leftovers`.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        if temporary.exists():
            if durable:
                _sync_file(temporary)
            os.replace(temporary, path)
            if durable:
                sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes left beside `path`; only while no other process writes it."""
    for leftover in path.parent.glob(f".{path.name}.*{TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def removing_empty_folders(folder: Path) -> Iterator[None]:
    """Remove at the end those of `folder` and the folders above it that were missing before and are empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        # From the innermost outwards; one that is not empty ends it.
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: str | Path) -> None:
    """Put the names in `folder` on the disk; network mounts that cannot are left as they are."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def user_cache() -> Path:
    """Return the folder for what can be fetched or computed again: `~/.cache/imgtx`, or under XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgtx"
