"""All stages in one process, one image after the other or a batch at a time, as the local engine runs them.

On a CPU the model and the codecs share the same cores, so pixels that travel between processes only cost time.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext

import pyarrow as pa

from pipeline.spec import Job
from pipeline.stages.decode import decode
from pipeline.stages.encode import encode
from pipeline.stages.publish import publish
from pipeline.stages.transform import Transform
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import PIXELS, WAITED


class AllStages:
    """Holds one model; takes WORK tables and yields FINISHED tables of one row, each when its output is stored."""

    def __init__(self, job: Job, device: str | None = None):
        self.job = job
        self.transform = Transform(job, device)
        self.free_since = time.perf_counter()
        # Seconds that no row has reported yet.
        self.waited = 0.0

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        watcher = self.transform.drain_watcher
        with watcher.working() if watcher else nullcontext():
            self.waited += time.perf_counter() - self.free_since
            for tiles in self._decoded(batch):
                for row in self.transform.outputs(tiles):
                    row[WAITED.name], self.waited = self.waited, 0.0
                    for encoded in encode(to_table([row], PIXELS), self.job):
                        for finished in publish(encoded, self.job):
                            made = time.perf_counter()
                            yield finished
                            self.free_since = time.perf_counter()
                            self.waited += self.free_since - made

    def _decoded(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield the tiles of each image, or of all that go through the model together."""
        tables = decode(batch, self.job)
        return iter([pa.concat_tables(tables)]) if self.transform.batched and batch.num_rows > 1 else tables
