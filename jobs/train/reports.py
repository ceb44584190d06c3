"""What the workers of a training on Ray report, and what the driver makes of it."""

import logging
from collections.abc import Callable
from typing import Any

from imgtx.errors import ImageError, ImgtxError, UsageError
from imgtx.training.data.left_out import LeftOut
from jobs.train.restarts import Restarts

log = logging.getLogger("imgtx.train")

Reporter = Callable[[dict[str, Any]], None]

# Of the images that are left out; the others are only counted.
NAMED = 5


def name_of(checkpoint: str) -> str:
    """Return what a user calls a checkpoint's path, "" being none."""
    return checkpoint.rstrip("/").rpartition("/")[2] or "the beginning"


class ReportMailbox:
    """An actor in which the workers leave their reports for the driver."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []

    def put(self, line: dict[str, Any]) -> None:
        self._lines.append(line)

    def take(self) -> list[dict[str, Any]]:
        lines, self._lines = self._lines, []
        return lines


class Relay:
    """Passes the workers' lines on to `report`, with the number of images that all of them left out.

    Raises UsageError or ImgtxError for what no start of the workers can cure, RunInterruptedError as `Restarts`.
    """

    def __init__(self, report: Reporter, restarts: Restarts, left_out: LeftOut) -> None:
        self._report, self._restarts, self._left_out = report, restarts, left_out
        # Of all workers together.
        self.starts = 0

    def __call__(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if "refused" in line:
                raise UsageError(line["refused"])
            if "stopped" in line:
                raise ImgtxError(line["stopped"])
            if "failed" in line:
                self._restarts.failure = line["failed"]
            elif "began" in line:
                self.starts += 1
                if self.starts > 1:
                    log.warning("the workers started again, from %s", name_of(line["began"]))
                self._restarts.count_start(line["began"])
            elif "message" in line:
                self._leave_out(line["left_out"], ImageError(line["reason"], line["message"]))
            else:
                counted = {"left_out": len(self._left_out)} if self._left_out else {}
                self._report(line | counted)

    def _leave_out(self, name: str, error: ImageError) -> None:
        if name in self._left_out:
            return
        self._left_out.add(name, error)
        if len(self._left_out) <= NAMED:
            log.warning("left out: %s", error)
        elif len(self._left_out) == NAMED + 1:
            log.warning("more images are left out: the log counts them (left_out)")
