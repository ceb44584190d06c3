"""Pause other work of this machine while it measures: SIGSTOP, and SIGCONT at the end."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from bench.cpu_seconds import descendants


@contextmanager
def paused(pids: Sequence[int]) -> Iterator[None]:
    """Stop these processes and all below them; let them continue at the end, also after Ctrl-C and SIGTERM.

    A process that was stopped before stays so. SystemExit where one does not exist or is another user's, before any is
    stopped. After SIGKILL of this process they stay stopped until `kill -CONT PID`.
    """
    for pid in pids:
        try:
            os.kill(pid, 0)
        except OSError as error:
            raise SystemExit(
                f"--pause {pid}: {error.strerror}; give the id of a process of yours, as `ps` shows it"
            ) from error
    previous = signal.signal(signal.SIGTERM, _exit)
    stopped: list[int] = []
    try:
        for pid in pids:
            # The parent first, so that it starts no more.
            for one in (pid, *(below for below, _, _ in descendants(pid))):
                if _state(one) not in ("T", "t"):
                    with suppress(ProcessLookupError):
                        os.kill(one, signal.SIGSTOP)
                        stopped.append(one)
        # A process stops when it is next scheduled, which takes a while on a busy machine.
        while any(_state(one) not in ("T", "t", "Z", "") for one in stopped):
            time.sleep(0.01)
        yield
    finally:
        for one in reversed(stopped):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)
        signal.signal(signal.SIGTERM, previous)


def _state(pid: int) -> str:
    """Return the letter that /proc has for what the process does, T for stopped; "" where it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _exit(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
