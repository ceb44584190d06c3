"""The folder of a training: one process at a time, and nothing left of a start that was refused."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from imgtx.errors import LeaseHeldError, UsageError
from imgtx.files import removing_empty_folders

log = logging.getLogger("imgtx.train")

LOCK = "training.lock"
# What file systems answer that have no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Keep other trainings out of `folder`, which is created if needed; removed at the end if nothing came into it.

    The lock is one of the kernel, which ends with this process however that ends. Raises LeaseHeldError where another
    process trains in the folder, UsageError where it cannot be written to.
    """
    with removing_empty_folders(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _locked(folder / LOCK)
        except OSError as error:
            raise UsageError(
                f"the folder {folder} cannot be written to ({error.strerror}): train in another folder"
            ) from error
        try:
            os.ftruncate(lock, 0)
            os.write(lock, _this_process().encode())
            yield
        finally:
            # Removed while it is still locked: a process that opened it meanwhile finds it gone, and tries again.
            with suppress(OSError):
                (folder / LOCK).unlink()
            os.close(lock)


def _locked(path: Path) -> int:
    """Return a descriptor of the lock file, locked."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(lock, 500).decode(errors="replace") or "another process"
            os.close(lock)
            raise LeaseHeldError(
                f"{holder} trains in the folder {path.parent}, and one process at a time may: wait for its end, or "
                "train in another folder"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(lock)
                raise
            log.warning(
                "the file system of %s has no locks: start only one training in it", path.parent.absolute()
            )
            return lock
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                return lock
        # The process before this one removed it.
        os.close(lock)


def _this_process() -> str:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on host {socket.gethostname()}, since {since},"
