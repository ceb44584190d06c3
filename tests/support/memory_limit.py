"""A real limit of memory: a control group that a command runs in, by cgroup v1 or v2. For root on Linux."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextmanager
def limited(megabytes: int) -> Iterator[Callable[[], None]]:
    """Yield a function that moves the process that calls it into a new group with this limit; removed at the end.

    Skips the test where no group can be made.
    """
    version_1 = (V1 / "memory.limit_in_bytes").exists()
    folder = (V1 if version_1 else V2) / f"imgtx-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        limit = "memory.limit_in_bytes" if version_1 else "memory.max"
        (folder / limit).write_text(str(megabytes << 20))
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no control group for memory can be made here: {error}")

    def enter() -> None:
        (folder / "cgroup.procs").write_text(str(os.getpid()))

    try:
        yield enter
    finally:
        # Processes that have ended stay in it for a moment.
        for _ in range(100):
            with suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)
