"""The temporary folders of large pictures: one that a killed process has left is removed by the next run here.

A process that is killed removes nothing. So each folder is locked by the process that uses it, with `flock`, which ends
with the process however that ends. A folder whose lock is free belongs to nobody. Its name holds the id that the kernel
gave to this boot: on a disk that several machines share, a lock may be seen by one of them only, and after a restart
nobody knows whose a folder was. Those of other machines and of earlier boots stay.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

PREFIX = "imgtx-spool-"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def spool_folder() -> Iterator[Path]:
    """Yield a new folder in the temporary folder; it goes with the block, or when `remove_abandoned` finds it."""
    folder, held = _locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # Last: until then nobody else removes it.
        os.close(held)


def remove_abandoned() -> None:
    """Remove the folders of this machine whose processes have ended."""
    folders: list[Path] = []
    # OSError: there is no temporary folder, or it may not be read.
    with suppress(OSError):
        folders += Path(tempfile.gettempdir()).glob(f"{_own_prefix()}*")
    for folder in folders:
        # OSError: it is in use, another user's, or gone by now, or this file system has no locks.
        with suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def _locked_folder() -> tuple[Path, int]:
    """Return a new folder and the open descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_own_prefix()))
        # FileNotFoundError: another process took it for abandoned before it was locked.
        with suppress(FileNotFoundError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            # A file system without locks: nobody else gets this lock, so nobody removes the folder.
            with suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX)
            if folder.exists():
                return folder, held
            os.close(held)


@cache
def _own_prefix() -> str:
    """Return how the names of this machine's folders begin, until it is started again."""
    # Not Linux, or a sandbox without this file: a name that no other process has, so that nobody removes the folder.
    boot = BOOT_ID.read_bytes() if BOOT_ID.exists() else os.urandom(16)
    return f"{PREFIX}{hashlib.sha256(boot).hexdigest()[:12]}-"
