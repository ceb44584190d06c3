"""Detect what would fail every further image, so that it stops the run: credentials that ended, a full destination."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from imgtx.errors import ImgtxError, RunInterruptedError, StorageError
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store
from pipeline.tables.schemas import CREDENTIALS, FORBIDDEN, NO_SPACE, WRITTEN

# So many refused images in a row make the monitor check the storage itself.
REFUSALS = 100


class AccessMonitor:
    """Checks outcome rows as they arrive. `source` is the store of their images."""

    def __init__(self, source: Store):
        self._source = replace(source, retry=FAIL_FAST)
        # Refused images in a row.
        self._refused = 0
        # The key of an image that could be read.
        self._readable = ""

    def check(self, rows: pa.Table) -> tuple[pa.Table, ImgtxError | None]:
        """Return the rows to record, and the error that must end the run, if any.

        Invalid credentials and a full destination end it at once, because every later image would fail too; their rows
        are not recorded. Access may be denied for single images, which are recorded as failed; after REFUSALS in a row
        an image that could be read before is requested again.
        """
        for reason in (CREDENTIALS, NO_SPACE):
            theirs = pc.equal(rows["reason"], reason)
            rows, messages = rows.filter(pc.invert(theirs)), rows["message"].filter(theirs).to_pylist()
            if messages:
                full = reason == NO_SPACE
                return rows, StorageError(reason, messages[0]) if full else RunInterruptedError(messages[0])
        refused = self._refused_all(rows)
        return rows, RunInterruptedError(refused) if refused else None

    def _refused_all(self, rows: pa.Table) -> str:
        if written := rows["key"].filter(pc.equal(rows["status"], WRITTEN)).to_pylist():
            self._readable = written[-1]
        others = pc.any(pc.not_equal(rows["reason"], FORBIDDEN)).as_py()
        self._refused = 0 if others else self._refused + rows.num_rows
        if self._refused < REFUSALS:
            return ""
        self._refused = 0
        try:
            self._source.stat(self._readable) if self._readable else self._source.probe()
        except StorageError as error:
            if error.reason in (FORBIDDEN, CREDENTIALS):
                return f"{REFUSALS} images in a row were refused, and {error}"
        return ""
