"""Build the processing stages of one image, as a Ray Data dataset.

    work rows ── decode ──> tile stacks ── transform ──> whole images ── encode ──> files ── publish ──> outcome rows
                 CPU tasks                 actors, GPU                  CPU tasks, on any node

One row is one image from end to end. Stages are plain functions on Arrow tables, one file each in `pipeline/stages/`. A
failure becomes a row, never an exception. The driver drains the outcome rows into the ledger.
"""

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from pipeline.cluster.pool import Pool
from pipeline.spec import Job
from pipeline.stages.decode import decode
from pipeline.stages.encode import encode
from pipeline.stages.publish import publish
from pipeline.stages.transform import Transform


def build_dataset(work: pa.Table, job: Job, pool: Pool) -> Dataset:
    """Return a lazy dataset from WORK rows to FINISHED rows; nothing runs until it is iterated."""
    tables = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
    tasks = tables | {"fn_kwargs": {"job": job}, "num_cpus": pool.task_cpus}
    # Ray Data requires a batch size with a GPU; on a CPU an actor takes each block as it comes.
    on_device = tables | {"batch_size": pool.rows_per_block if pool.actor_gpus else None}
    actors = ActorPoolStrategy(**pool.sizes, max_tasks_in_flight_per_actor=pool.tasks_in_flight)
    blocks = [
        work.slice(start, pool.rows_per_block) for start in range(0, work.num_rows, pool.rows_per_block)
    ]
    return (
        ray.data.from_arrow(blocks)
        # Decode keeps its CPU while it waits for room at the models: unbounded, it leaves none to the later stages.
        .map_batches(decode, compute=TaskPoolStrategy(size=pool.decoders), **tasks)
        .map_batches(
            Transform,
            fn_constructor_kwargs={"job": job, "device": None if pool.actor_gpus else "cpu"},
            compute=actors,
            num_cpus=pool.actor_cpus,
            num_gpus=pool.actor_gpus,
            max_restarts=pool.restarts,
            max_task_retries=pool.retries,
            **on_device,
        )
        .map_batches(encode, **tasks)
        .map_batches(publish, **tasks)
    )
