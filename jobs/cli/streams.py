"""Standard streams that are closed, full, or no longer read: a run does not depend on them."""

import io
import os
import sys
from typing import Any


def open_missing() -> None:
    """Open what was closed when the process began (`2>&-`) to nothing, before another file gets its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def survive_loss() -> None:
    """From here on output that cannot be written is dropped: the terminal is closed, the log's disk is full.

    For commands whose result is not what they print.
    """
    # A test's own streams stay.
    if (real := sys.__stdout__) and sys.stdout is real:
        sys.stdout = _forgiving(real.fileno(), real.encoding)
    if (real := sys.__stderr__) and sys.stderr is real:
        sys.stderr = _forgiving(real.fileno(), real.encoding)


def _forgiving(number: int, encoding: str) -> io.TextIOWrapper:
    raw: io.RawIOBase = _Forgiving(number, "wb", closefd=False)
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding=encoding, errors="backslashreplace", line_buffering=True)


class _Forgiving(io.FileIO):
    """A file descriptor that becomes /dev/null at the first error."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            return len(data)
