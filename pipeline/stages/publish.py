"""Publish: write each encoded image under its output name; only the small outcome row is passed on.

The object is durable before its row exists, so a row in the ledger guarantees that the file was written.
"""

from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from pipeline.output_attributes import output_attributes
from pipeline.spec import Job
from pipeline.storage.store import Store, open_store
from pipeline.tables.rows import Row, rows_of, run_stage, to_table
from pipeline.tables.schemas import FINISHED, IMAGES, WRITTEN


def publish(batch: pa.Table, job: Job) -> Iterator[pa.Table]:
    """Yield FINISHED rows for ENCODED rows."""
    store = open_store(job.spec.destination, endpoint_url=job.spec.endpoint_url)
    for row in rows_of(batch):
        yield to_table([publish_row(row, store, job)], FINISHED)


def publish_row(row: Row, store: Store, job: Job) -> Row:
    """Return the row of an encoded image as an outcome, once its file is stored."""
    return run_stage("publish", row, partial(put, store=store, job=job))


def put(row: Row, store: Store, job: Job) -> Row:
    """Write the row's file to `images/` and mark the row as written."""
    store.write(IMAGES + row["output"], memoryview(row["encoded"]), output_attributes(row, job))
    return row | {"status": WRITTEN}
