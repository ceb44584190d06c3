"""Whether the storage still lets a run in, told from its outcomes: a right that ends must not fail a whole archive."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from imgtx.errors import StorageError
from pipeline.storage.retry import HASTY
from pipeline.storage.store import Store
from pipeline.tables.schemas import CREDENTIALS, FORBIDDEN, WRITTEN

REFUSALS = 100  # images in a row that the storage refuses before it is asked what is the matter


class Access:
    """Judges outcome rows as they come in; source: where their images lie."""

    def __init__(self, source: Store):
        self._source = replace(source, patience=HASTY)
        self._refused = 0  # images in a row
        self._readable = ""  # the key of one that could be read

    def judge(self, rows: pa.Table) -> tuple[pa.Table, str]:
        """The rows that tell of their images, and why the run cannot go on, "" where it can.

        Credentials that the storage does not know end it at once: whatever comes after would fail alike. Rights may be
        missing for some images only, which are rows that failed; after many in a row one is asked for that could be
        read before.
        """
        unknown = pc.equal(rows["reason"], CREDENTIALS)
        rows, ended = rows.filter(pc.invert(unknown)), rows["message"].filter(unknown).to_pylist()
        if ended:
            return rows, ended[0]
        return rows, self._refused_all(rows)

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
