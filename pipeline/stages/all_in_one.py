"""All stages in one process, of the local engine or an actor of Ray: rows stay Python values, pixels where they are.

On a CPU the model and the codecs share the same cores, so pixels that travel between processes only cost time. What
waits for storage is apart (`fetch`, `publish`), so that threads can do it while the model runs.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cached_property

import pyarrow as pa

from imgtx.models.generation import images_per_call
from pipeline.spec import Job
from pipeline.stages.decode import fetch, open_job, to_tiles
from pipeline.stages.encode import encode_row
from pipeline.stages.publish import publish_row
from pipeline.stages.transform import Transform
from pipeline.storage.store import Store, open_store
from pipeline.tables.rows import Row, empty, rows_of, to_table
from pipeline.tables.schemas import FINISHED, PIXELS, WAITED
from pipeline.tasks.base import Opened

# The columns that a row has from the first stage on, as if it had travelled as a table.
EMPTY = {field.name: empty(field.type) for field in PIXELS}


class AllStages:
    """Holds one model, and what rows are read from and written to. Neither is opened before it is used.

    A row goes through `ahead`, `here` and `behind`. `here` has the model and belongs to one thread; it takes the rows
    that go through the model together. The others may run in threads beside it. On a CPU they only wait for storage. On
    a GPU they decode and encode, too.
    """

    def __init__(self, job: Job, device: str | None = None):
        self.job = job
        self.transform = Transform(job, device)
        self.beside = self.transform.predictor.device.type != "cpu"
        self.free_since = time.perf_counter()
        # Seconds that no row has reported yet.
        self.waited = 0.0

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield a FINISHED table of one row for each row of a WORK table, when its output is stored. For an actor."""
        watcher, together = self.transform.drain_watcher, images_per_call(self.job.info)
        with watcher.working() if watcher else nullcontext():
            self.waited += time.perf_counter() - self.free_since
            rows = [*rows_of(batch)]
            for start in range(0, len(rows), together):
                for made in self.here([self.ahead(row) for row in rows[start : start + together]]):
                    made[WAITED.name], self.waited = self.waited, 0.0
                    finished = to_table([self.behind(made)], FINISHED)
                    stored = time.perf_counter()
                    yield finished
                    self.free_since = time.perf_counter()
                    self.waited += self.free_since - stored

    def ahead(self, row: Row) -> Row:
        """Return a work row with what must be read of storage."""
        row = fetch(EMPTY | row, self.job, self._opened)
        return to_tiles(row, self.job) if self.beside else row

    def here(self, rows: list[Row]) -> Iterator[Row]:
        """Yield the rows with their outputs."""
        if self.beside:
            yield from self.transform.outputs(rows)
            return
        for row in self.transform.outputs(to_tiles(row, self.job) for row in rows):
            yield encode_row(row, self.job)

    def behind(self, row: Row) -> Row:
        """Return the row's outcome, its output stored."""
        return publish_row(encode_row(row, self.job) if self.beside else row, self._destination, self.job)

    @cached_property
    def _opened(self) -> Opened:
        return open_job(self.job)

    @cached_property
    def _destination(self) -> Store:
        return open_store(self.job.spec.destination, endpoint_url=self.job.spec.endpoint_url)
