"""What Ray says during a run goes into a file, not onto the terminal; the file is named if something went wrong."""

import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from pipeline.cluster.machine import PREFIX
from pipeline.cluster.private import worker_messages_to

log = logging.getLogger("imgtx.pipeline")

RAY_FOLDER = f"{os.sep}ray{os.sep}"


class Messages:
    """The file of one run. errors: how many messages were about workers that ended and tasks that failed."""

    def __init__(self) -> None:
        self.path, self.errors = os.devnull, 0
        # A full disk for temporary files: what Ray says is lost.
        with suppress(OSError):
            descriptor, self.path = tempfile.mkstemp(prefix=f"{PREFIX}{os.getpid()}-", suffix=".log")
            os.close(descriptor)
        self._file = open(self.path, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115 - closed by `end`

    def write(self, whose: str, line: str) -> None:
        # ValueError: the run is over. OSError: the disk is full.
        with suppress(OSError, ValueError):
            self._file.write(f"{time.strftime('%H:%M:%S')} {whose}: {line}\n")

    def of_worker(self, data: Mapping[str, Any], print_file: object, ignore_prefix: bool = False) -> None:
        """Take the place of what prints lines of workers and daemons in colours."""
        for line in data.get("lines", ()):
            self.errors += 1
            self.write(str(data.get("pid", "ray")), line)

    def end(self, *, failed: bool) -> None:
        """Close the file; name it if something went wrong, else remove it."""
        self._file.close()
        if self.path == os.devnull:
            return
        if (failed or self.errors) and os.path.getsize(self.path):
            log.warning("what Ray said meanwhile is in %s", self.path)
        else:
            with suppress(OSError):
                os.unlink(self.path)


@contextmanager
def messages_in_a_file() -> Iterator[Messages]:
    """Write what Ray prints and warns of in this process to a file until the block ends."""
    messages, show = Messages(), warnings.showwarning

    def show_others(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if RAY_FOLDER in filename:
            messages.write(category.__name__, str(message))
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = show_others
    try:
        with worker_messages_to(messages.of_worker):
            yield messages
    finally:
        warnings.showwarning = show
        error = sys.exc_info()[0]
        messages.end(failed=error is not None and not issubclass(error, KeyboardInterrupt | GeneratorExit))
