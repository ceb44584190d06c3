"""An image that kills its worker: the process that holds it gets SIGKILL from outside."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable

import psutil

# A file in such a folder: who removes what a killed process left has only the folder open.
SPOOLED = re.compile(r"/imgtx-spool-[^/\n]+/")


def holds_a_spool(process: psutil.Process) -> bool:
    """Return whether the process has an image spooled to disk open, as only large ones are."""
    with contextlib.suppress(OSError):
        for link in os.scandir(f"/proc/{process.pid}/fd"):
            with contextlib.suppress(OSError):
                if SPOOLED.search(os.readlink(link.path)):
                    return True
        with open(f"/proc/{process.pid}/maps") as maps:
            return bool(SPOOLED.search(maps.read()))
    return False


def kill_worker_with_the_large_image(
    workers: Callable[[], Iterable[psutil.Process]], goes_on: Callable[[], bool], killed: list[int]
) -> None:
    """Kill each of `workers()` that holds a large image, as long as `goes_on()`; `killed` gets their ids."""
    while goes_on():
        for worker in workers():
            if holds_a_spool(worker):
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
                    killed.append(worker.pid)
        # Without it this loop takes a core from the run.
        time.sleep(0.05)
