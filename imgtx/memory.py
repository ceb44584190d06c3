"""How much memory this process may use, of its machine or container, and how it returns what it has freed.

A container sees the memory of the whole machine in /proc/meminfo. What it may use is in the files of its control group,
or of a group above it: `memory.max` (cgroup v2) or `memory.limit_in_bytes` (v1).
"""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
# Who is limited.
MACHINE, CONTAINER = "programs of this machine", "this container or job"


@dataclass(frozen=True)
class Memory:
    """Memory in bytes: `total` is the limit, `free` what is left of it now. `whose` names who may use it."""

    total: int
    free: int
    whose: str

    def describe(self) -> str:
        """Return in words what is left of what."""
        return f"{self.free >> 20:,} MB are free of the {self.total >> 20:,} MB that {self.whose} may use"


@dataclass(frozen=True)
class _Files:
    """Where one version of control groups is mounted, and the names of its files.

    limits: the kernel ends processes beyond the first, and slows them down until they stand still beyond the others.
    """

    mounts: tuple[str, ...]
    limits: tuple[str, ...]
    used: str
    reclaimable: tuple[str, ...]
    killed: str


V2 = _Files(
    ("sys/fs/cgroup", "sys/fs/cgroup/unified"),
    ("memory.max", "memory.high"),
    "memory.current",
    ("inactive_file", "active_file"),
    "memory.events",
)
V1 = _Files(
    ("sys/fs/cgroup/memory",),
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
    "memory.oom_control",
)


def memory_at_hand(root: Path = ROOT) -> Memory | None:
    """Return the memory of the machine or of a group around this process, whichever has the least left.

    None where the system does not tell (not Linux). root: for tests, the folder that holds `proc` and `sys`.
    """
    found = [memory for files, folder in _groups(root) if (memory := _of_group(files, folder))]
    with suppress(OSError, ValueError, KeyError):
        facts = _numbers(root / "proc/meminfo")
        found.append(Memory(facts["MemTotal:"] << 10, facts["MemAvailable:"] << 10, MACHINE))
    return min(found, key=lambda memory: memory.free, default=None)


def killed_for_memory(root: Path = ROOT) -> int:
    """Return how many processes of our group the kernel has killed for memory; of the machine where that is unknown."""
    for files, folder in _groups(root):
        with suppress(OSError, ValueError, KeyError):
            return _numbers(folder / files.killed)["oom_kill"]
    with suppress(OSError, ValueError, KeyError):
        return _numbers(root / "proc/vmstat")["oom_kill"]
    return 0


def return_freed_memory() -> None:
    """Return to the system what this process has freed; without effect where the C library is not glibc.

    Workers let glibc keep it, because a model takes the same again for its next tile. What comes after the model takes
    other sizes, for which a part of that is of no use.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _groups(root: Path) -> Iterator[tuple[_Files, Path]]:
    """Yield the folders of the groups around this process, its own first.

    In a container its own group is usually mounted where others have the outermost one, under any path.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        files = V1 if controllers else V2
        # A group outside of the container is shown as `/../name`.
        inner = PurePosixPath(*(part for part in path.split("/") if part not in ("", "..")))
        for mount in files.mounts:
            for group in (inner, *inner.parents):
                if (folder := root / mount / group).is_dir():
                    yield files, folder


def _of_group(files: _Files, folder: Path) -> Memory | None:
    limits = []
    for name in files.limits:
        # "max", or no such file: no limit.
        with suppress(OSError, ValueError):
            limits.append(int((folder / name).read_text()))
    # What version 1 has for no limit is beyond any machine.
    if not limits or min(limits) >= 1 << 60:
        return None
    try:
        used = int((folder / files.used).read_text())
        facts = _numbers(folder / "memory.stat")
    except (OSError, ValueError):
        return None
    # Copies of files, which the kernel drops when room is needed.
    used -= sum(facts.get(name, 0) for name in files.reclaimable)
    return Memory(min(limits), max(0, min(limits) - used), CONTAINER)


def _numbers(path: Path) -> dict[str, int]:
    """Return the lines `name number` of a file of the kernel."""
    pairs = (line.split()[:2] for line in path.read_text().splitlines())
    return {name: int(number) for name, number in pairs}
