"""Report how much of an image the model has done, while it works on it: of images that take more than a second."""

import json
import time
from collections.abc import Callable
from typing import NamedTuple

from pipeline.tables.rows import Row

# Between two reports of a worker: without a report, an image that takes less costs nothing.
REPORT_SECONDS = 1.0


class PartDone(NamedTuple):
    """How much of an image is done.

    share: of its pixels that the model has done, 0 to 1; 0 while it is read. megapixels: of the whole image, 0 before
    its size is known. size: of its source, in bytes.
    """

    key: str
    share: float
    megapixels: float
    size: int

    def to_bytes(self) -> bytes:
        """Return it as a message."""
        return json.dumps(self).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "PartDone":
        """Return what `to_bytes` has written."""
        return cls(*json.loads(data))


class PartReporter:
    """Reports of one worker, at most one a second; none before `send` is set.

    send: called with each report, as `PartDone.to_bytes` makes it, and with None when the model is done with an image
    of which there were reports.
    """

    def __init__(self) -> None:
        self.send: Callable[[bytes | None], None] | None = None
        self._row: Row | None = None
        self._reported, self._last = False, 0.0

    def begin(self, row: Row | None, *, at_once: bool = False) -> None:
        """Take the next reports for this image; None for several images, of which nothing is reported.

        row: looked at with each report, because its size becomes known later. at_once: report that the image is read.
        """
        self._row, self._reported, self._last = row, False, time.monotonic()
        if at_once:
            self._report(0.0)

    def done(self, share: float) -> None:
        """Note that the model has done this share of the image, 0 to 1, after each of its tiles."""
        if self._reported if share == 1.0 else time.monotonic() - self._last >= REPORT_SECONDS:
            self._report(share)

    def end(self) -> None:
        """Note that the model is done with the image."""
        if self._reported and self.send:
            self.send(None)
        self._row, self._reported = None, False

    def _report(self, share: float) -> None:
        if self._row and self.send:
            row, self._reported, self._last = self._row, True, time.monotonic()
            megapixels = row.get("in_height", 0) * row.get("in_width", 0) / 1e6
            self.send(PartDone(row["key"], share, megapixels, row["size"]).to_bytes())
