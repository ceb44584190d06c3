"""Fetch and decode: turn a work row into the stack of tiles that the model is given. CPU tasks, no torch.

The task decides what is fetched and how it becomes tiles (`Task.fetch`, `Task.load`).
"""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.sources import open_source
from pipeline.spec import Job
from pipeline.tables.rows import Row, rows_of, run_stage, to_table
from pipeline.tables.schemas import PIXELS
from pipeline.tasks import get_task
from pipeline.tasks.base import Opened


def decode(batch: pa.Table, job: Job) -> Iterator[pa.Table]:
    """Yield PIXELS rows for WORK rows, one table an image, so that Ray can split blocks by bytes."""
    opened = open_job(job)
    for row in rows_of(batch):
        yield to_table([to_tiles(fetch(row, job, opened), job)], PIXELS)


def open_job(job: Job) -> Opened:
    """Open what the job's rows are read from."""
    task = get_task(job.spec.task)
    return Opened(
        open_source(job.spec.source, task.sources, job.spec.endpoint_url), task.open_inputs(job.spec)
    )


def fetch(row: Row, job: Job, opened: Opened) -> Row:
    """Return a work row with what the task reads of storage. Threads may call it side by side."""
    task = get_task(job.spec.task)
    return run_stage("fetch", row, lambda row: task.fetch(row, opened))


def to_tiles(row: Row, job: Job) -> Row:
    """Return a fetched row with its tiles."""
    task = get_task(job.spec.task)
    return run_stage("decode", row, lambda row: _with_model(task.load(row, job), job))


def _with_model(row: Row, job: Job) -> Row:
    """Name the run's one model in the row. Where it is chosen for each picture, the choice has named it, or will."""
    return row if row.get("model") or job.choices else row | {"model": job.spec.model}
