"""Fetch and decode: turn a work row into the stack of tiles that the model is given. CPU tasks, no torch.

The task decides what is fetched and how it becomes tiles (`Task.fetch`, `Task.load`).
"""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.sources import open_source
from pipeline.spec import Job
from pipeline.tables.rows import rows_of, run_stage, to_table
from pipeline.tables.schemas import PIXELS
from pipeline.tasks import get_task
from pipeline.tasks.base import Opened


def decode(batch: pa.Table, job: Job) -> Iterator[pa.Table]:
    """Yield PIXELS rows for WORK rows, one table an image, so that Ray can split blocks by bytes."""
    task = get_task(job.spec.task)
    source = open_source(job.spec.source, task.sources, job.spec.endpoint_url)
    opened = Opened(source, task.open_inputs(job.spec))
    for row in rows_of(batch):
        row = run_stage("fetch", row, lambda row: task.fetch(row, opened))
        yield to_table([run_stage("decode", row, lambda row: task.load(row, job))], PIXELS)
