"""CPU seconds of a command and of everything that it starts, daemons included; Linux only.

A process that outlives its parent is handed to the nearest subreaper, which this one becomes: so all stay below it, and
the system adds up what they took as each is waited for. Where a parent does not wait for its children, their sum is
missing there: what is read from /proc until they end has it, without the last moments of each, at most EVERY seconds.
The larger of the two sums counts.
"""

import ctypes
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
EVERY = 0.05
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """What a command took: CPU and wall seconds, and the most memory of its processes together, in MB."""

    cpu: float
    wall: float
    megabytes: float
    stdout: str


def spend(command: Sequence[str], environment: dict[str, str] | None = None) -> Spent:
    """Run a command, wait for its remaining processes, and return what all took. CalledProcessError if it fails."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(
            ctypes.get_errno(), "this system cannot count the processes that a command leaves behind"
        )
    before = waited_for()
    ticks: dict[int, int] = {}
    peak = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            seen = {pid: (used, pages) for pid, used, pages in descendants(os.getpid())}
            ticks.update({pid: used for pid, (used, _) in seen.items()})
            peak[0] = max(peak[0], sum(pages for _, pages in seen.values()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        wall = time.perf_counter() - started
        while any(True for _ in descendants(os.getpid())):
            reap()
            time.sleep(EVERY)
    finally:
        done.set()
        watcher.join()
    megabytes = peak[0] * os.sysconf("SC_PAGE_SIZE") / 1e6
    reap()
    cpu = max(sum(ticks.values()) / TICKS, waited_for() - before)
    return Spent(cpu, wall, megabytes, ended.stdout)


def waited_for() -> float:
    """Return the CPU seconds of all processes that were waited for, by this one or by one of these."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def descendants(root: int) -> Iterator[tuple[int, int, int]]:
    """Yield (process, ticks used, pages of memory) of each living process below `root`."""
    below: dict[int, list[tuple[int, int, int]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            used = int(fields[11]) + int(fields[12])
            below.setdefault(int(fields[1]), []).append((int(path.parent.name), used, int(fields[21])))
    left = [root]
    while left:
        for process in below.get(left.pop(), []):
            yield process
            left.append(process[0])


def reap() -> None:
    """Collect the processes that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
