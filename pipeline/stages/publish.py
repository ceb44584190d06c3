"""Publish: put each encoded image under the name made from its key; what leaves is the small outcome row.

The object is durable before its row exists, so a row in the ledger is a promise that the file is there.
"""

from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from pipeline.spec import Job
from pipeline.storage.store import Store, open_store
from pipeline.tables.rows import Row, rows_of, run_stage, to_table
from pipeline.tables.schemas import FINISHED, IMAGES, WRITTEN


def publish(batch: pa.Table, job: Job) -> Iterator[pa.Table]:
    """ENCODED rows -> FINISHED rows."""
    store = open_store(job.spec.destination, endpoint_url=job.spec.endpoint_url)
    for row in rows_of(batch):
        yield to_table([run_stage("publish", row, partial(put, store=store))], FINISHED)


def put(row: Row, store: Store) -> Row:
    store.write(IMAGES + row["output"], memoryview(row["encoded"]))
    return row | {"status": WRITTEN}
