"""What a private Ray needs of this machine: checked before it starts, and named in one line where it is missing.

Without these checks Ray waits for minutes and then says only that it timed out.
"""

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imgtx.errors import ClusterError, RunInterruptedError

# A socket's path may have 107 bytes, on macOS 103; Ray appends up to 64 to its folder:
# /session_2026-11-30_14-41-05_056072_4194304/sockets/plasma_store
MAX_FOLDER_BYTES = (103 if sys.platform == "darwin" else 107) - 64
# For logs, and objects that find no room in memory.
MIN_FREE_BYTES = 64 << 20
# Measured with two workers: 66 open files in the largest process, 345 threads in all.
MIN_FILES, MIN_THREADS = 256, 400
SHARED_MEMORY = Path("/dev/shm")
PREFIX = "imgtx-ray-"
# After which the log of a run that failed is removed by the next one.
KEEP_SECONDS = 24 * 3600


# Where a container's limit on processes is, by cgroup v2 and v1.
CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/pids"))


def check_machine() -> None:
    """Raise ClusterError where Ray cannot start here; raise a low limit of open files if this process may."""
    check_loopback()
    if os.name == "posix":
        check_open_files()
        check_processes()


def check_loopback() -> None:
    """Raise ClusterError where nothing can connect to this machine's own address."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        raise ClusterError(
            f"Ray cannot start here: nothing can connect to 127.0.0.1 ({error}): bring the loopback interface up "
            "(ip link set lo up), or take --engine local"
        ) from error


def check_open_files() -> None:
    """Raise ClusterError where a process may have too few open files; raise a low limit if this process may."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= MIN_FILES:
        return
    if hard != resource.RLIM_INFINITY and hard < MIN_FILES:
        raise ClusterError(
            f"Ray cannot start here: a process may have {hard} open files (ulimit -Hn), it needs {MIN_FILES}: raise "
            "that limit, or take --engine local"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (MIN_FILES, hard))


def check_processes() -> None:
    """Raise ClusterError where this user or this container may have too few processes."""
    for whose, limit, most, now in _process_limits():
        if now + MIN_THREADS > most:
            raise ClusterError(
                f"Ray cannot start here: {whose} may have {most} processes and threads ({limit}) and has {now}, Ray "
                f"needs {MIN_THREADS} more: raise that limit, or take --engine local"
            )


def processes_left() -> int | None:
    """Return how many more processes and threads this user or container may have; None where there is no limit."""
    return min((most - now for _, _, most, now in _process_limits()), default=None)


def _process_limits() -> Iterator[tuple[str, str, int, int]]:
    """Yield each limit: whose it is, its name, how many processes and threads it allows, how many there are."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    # The system does not hold root to this limit.
    if soft != resource.RLIM_INFINITY and os.geteuid():
        yield "this user", "ulimit -u", soft, _threads_of(os.getuid())
    for cgroup in CGROUPS:
        # Not numbers, or no such files: no limit.
        with suppress(OSError, ValueError):
            most, now = (int((cgroup / name).read_text()) for name in ("pids.max", "pids.current"))
            yield "this container", "its pids limit", most, now


def _threads_of(user: int) -> int:
    """Return how many threads of `user` there are; 0 where the system does not tell."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        # It has ended meanwhile.
        with suppress(OSError):
            if process.stat().st_uid == user:
                count += sum(1 for _ in (process / "task").iterdir())
    return count


class RayEndedError(RunInterruptedError):
    """Ray's own processes ended in the middle of a run; it can be resumed."""


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Yield a new folder for the sockets, logs and spilled objects of a private Ray, removed at the end.

    It stays where Ray failed (ClusterError or RayEndedError escapes the block), because its logs say why; a run after a
    day removes it. Raises ClusterError where no folder can be used.
    """
    parent = find_folder()
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
    keep = False
    try:
        yield folder
    except BaseException as error:
        keep = isinstance(error, ClusterError | RayEndedError)
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _candidates() -> list[str]:
    """Return folders to try: where the environment says, then the system's short ones."""
    named = [os.environ.get(name, "") for name in ("RAY_TMPDIR", "TMPDIR")]
    return [*filter(None, named), "/tmp", "/var/tmp", str(SHARED_MEMORY)]


def find_folder() -> str:
    """Return the first folder that Ray can use; ClusterError, with what is wrong with each, where there is none."""
    wrong = []
    for folder in _candidates():
        cause = _unusable(folder)
        if not cause:
            return folder
        wrong.append(f"{folder} {cause}")
    raise ClusterError(
        f"Ray cannot start here, it finds no folder for its sockets and logs: {'; '.join(dict.fromkeys(wrong))}: set "
        "RAY_TMPDIR to a short path with room"
    )


def _unusable(folder: str) -> str:
    """Return what keeps Ray from using a folder; "" where nothing does."""
    length = len(os.fsencode(folder)) + len(f"/{PREFIX}{os.getpid()}-12345678")
    if length > MAX_FOLDER_BYTES:
        return f"is too long by {length - MAX_FOLDER_BYTES} bytes"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "cannot be written" if os.path.isdir(folder) else "is not a folder"
    free = shutil.disk_usage(folder).free
    return f"has only {free >> 20} MB left" if free < MIN_FREE_BYTES else ""


def _sweep(parent: str) -> None:
    """Remove what processes that are no longer there have left."""
    for folder in Path(parent).glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError):
            old = time.time() - folder.stat().st_mtime > KEEP_SECONDS
            if old and not Path(f"/proc/{int(folder.name.split('-')[2])}").exists():
                folder.unlink() if folder.is_file() else shutil.rmtree(folder, ignore_errors=True)


def object_folder(folder: Path) -> str | None:
    """Return where Ray puts its objects: None for its own choice, `folder` where /dev/shm cannot be written."""
    writable = os.access(SHARED_MEMORY, os.W_OK | os.X_OK)
    return None if writable or not SHARED_MEMORY.is_dir() else str(folder)
