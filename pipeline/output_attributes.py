"""What a job's local outputs take over of the files that they are made from."""

import os
from functools import lru_cache

from pipeline.spec import Job
from pipeline.storage.attributes import PLAIN, Attributes, attributes_of
from pipeline.storage.objects import as_name
from pipeline.storage.store import open_store
from pipeline.tables.rows import Row
from pipeline.tasks.images import item_of


def output_attributes(row: Row, job: Job) -> Attributes:
    """Return time and permissions of a row's output: those of its source, where both are local files."""
    source, destination = _local_place(job.spec.source), _local_place(job.spec.destination)
    if not source or not destination:
        return PLAIN
    path = os.path.join(source, as_name(item_of(row)))
    if os.path.isfile(source):
        # A table: what is made from its rows was not made when it was written, and says no less than it does.
        return attributes_of(source, destination, times=False)
    return attributes_of(path, destination, times=job.spec.times)


@lru_cache(maxsize=32)
def _local_place(uri: str) -> str:
    """Return the path of a location of this machine; "" of any other."""
    store = open_store(uri)
    return store.uri if store.is_local else ""
