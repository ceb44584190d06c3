"""Build the processing stages of one image, as a Ray Data dataset.

    work rows ── decode ──> tile stacks ── transform ──> whole images ── encode ──> files ── publish ──> outcome rows

With GPUs the stages are apart: the model is in an actor on a GPU, and tasks on any node do the rest. Without GPUs one
actor a core runs all of them (`pipeline/stages/all_in_one.py`), as the local engine's processes do.

One row is one image from end to end. Stages are plain functions on Arrow tables, one file each in `pipeline/stages/`. A
failure becomes a row, never an exception. The driver drains the outcome rows into the ledger.
"""

from collections.abc import Iterator

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from pipeline.cluster.pool import Pool
from pipeline.spec import Job
from pipeline.stages.all_in_one import AllStages
from pipeline.stages.decode import decode
from pipeline.stages.encode import encode
from pipeline.stages.publish import publish
from pipeline.stages.transform import Transform


def build_dataset(work: pa.Table, job: Job, pool: Pool) -> Dataset:
    """Return a lazy dataset from WORK rows to FINISHED rows; nothing runs until it is iterated."""
    tables = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
    tasks = tables | {"fn_kwargs": {"job": job}, "num_cpus": pool.task_cpus}
    actors = {
        "compute": ActorPoolStrategy(**pool.sizes, max_tasks_in_flight_per_actor=pool.tasks_in_flight),
        "fn_constructor_kwargs": {"job": job, "device": None if pool.actor_gpus else "cpu"},
        "num_cpus": pool.actor_cpus,
        "num_gpus": pool.actor_gpus,
        "max_restarts": pool.restarts,
        "max_task_retries": pool.retries,
    }
    # Unlike `from_arrow`, which waits for a task of one CPU a block.
    rows = ray.data.from_blocks([*blocks_of(work, pool)])
    if pool.fused:
        return rows.map_batches(AllStages, **tables, **actors)
    return (
        # Decode keeps its CPU while it waits for room at the models: unbounded, it leaves none to the later stages.
        rows.map_batches(decode, compute=TaskPoolStrategy(size=pool.decoders), **tasks)
        # Ray Data requires a batch size with a GPU.
        .map_batches(Transform, **tables | actors | {"batch_size": pool.rows_per_block})
        .map_batches(encode, **tasks)
        .map_batches(publish, **tasks)
    )


def blocks_of(work: pa.Table, pool: Pool) -> Iterator[pa.Table]:
    """Cut the work into blocks of at most `rows_per_block` rows; of a fused pool also by the bytes of their sources."""
    start = taken = 0
    for row, size in enumerate(work["size"].to_pylist()):
        full = row - start >= pool.rows_per_block or (pool.fused and taken + size > pool.block_bytes)
        if row > start and full:
            yield work.slice(start, row - start)
            start, taken = row, 0
        taken += size
    if work.num_rows > start:
        yield work.slice(start)
