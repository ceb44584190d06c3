"""Sizes of the actor and task pools."""

import math
from dataclasses import dataclass, replace

from imgtx.errors import UsageError
from pipeline.spec import RunSpec

# The most images that one decode task takes; a block costs Ray about 60 ms.
ROWS_PER_BLOCK = 16
# Decoded pixels that travel to a model in one block. On a CPU, where a megapixel takes seconds, blocks of one image
# share the work evenly to the end; a GPU wants many tiles at once.
BLOCK_BYTES_CPU, BLOCK_BYTES_GPU = 2 << 20, 32 << 20


@dataclass(frozen=True)
class Pool:
    """How many actors and tasks run at once, and what each of them holds.

    CPUs and GPUs are Ray's logical units.

    fused: each process runs all stages of an image, as on the local engine; on Ray actors only transform, and tasks on
        any node do the rest.
    min_actors: the pool starts with so many and grows up to `actors`; 0 for a pool of fixed size.
    restarts: -1 restarts an actor as often as it takes, on any node with room: a pool stalls on an actor that
        stays dead.
    retries: 0, because a call is bound to its actor. A retried call would wait for that actor even if its node is
        gone and no other has room; a failed one gives its images back without a row, and they run again on the
        actors that are left.
    """

    actors: int
    actor_cpus: float
    actor_gpus: float
    task_cpus: float
    rows_per_block: int
    block_bytes: int
    fused: bool = False
    decoders: int = 1
    encoders: int = 1
    min_actors: int = 0
    tasks_in_flight: int = 2
    restarts: int = -1
    retries: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """The actor pool's size as keywords of `ActorPoolStrategy`."""
        if self.min_actors:
            return {"min_size": self.min_actors, "max_size": self.actors}
        return {"size": self.actors}

    def isolated(self) -> "Pool":
        """Return this pool with one image a block and one block an actor, so that an image that crashes is alone."""
        return replace(self, rows_per_block=1, tasks_in_flight=1)


def size_pool(spec: RunSpec, resources: dict[str, float], images: int) -> Pool:
    """Size the pools for a cluster's `resources`: one actor a GPU, or one a core where there is no GPU.

    Without GPUs, models and codecs share the cores: actors hold three quarters of each, so that tasks always find
    room. Actors that held whole CPUs would starve the stages before them.

    Raises UsageError where the cluster has no CPU, or fewer GPUs than the spec asks for.
    """
    gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
    if cpus < 1:
        raise UsageError("the Ray cluster offers no CPU: start a node with at least one")
    if spec.gpus and spec.gpus > gpus and not spec.min_workers:
        raise UsageError(
            f"--gpus {spec.gpus:g}: the cluster has {gpus:g}; leave it out to use what is there, or give --workers and "
            "--min-workers for a cluster that grows"
        )
    use_gpu = (spec.gpus or gpus) > 0 and spec.gpus != 0
    most = spec.gpus or gpus if use_gpu else cpus
    if spec.min_workers and not spec.gpus:
        # A GPU or a core for each, which the cluster will have once it has grown.
        most = spec.workers or most
    actors = spec.workers or max(1, int(most))
    actors = max(1, min(actors, images))
    min_actors = min(spec.min_workers, actors) if spec.min_workers and spec.min_workers < actors else 0
    # The number of actors that the cluster has room for now.
    first = min_actors or actors
    rows = max(1, min(ROWS_PER_BLOCK, images // (2 * actors)))
    if use_gpu:
        # The share of a GPU for each actor that lets whole actors fit on every GPU.
        share = min(1.0, most) / math.ceil(actors / max(1, int(most)))
        pool = Pool(actors, min(0.5, cpus / (2 * first)), share, 0.5, rows, BLOCK_BYTES_GPU)
    else:
        # No block waits at an actor: on a CPU a block takes seconds, and another actor may be idle by then.
        pool = Pool(
            actors, 0.75 * min(1.0, cpus / first), 0.0, 0.25, rows, BLOCK_BYTES_CPU, tasks_in_flight=1
        )
    # Half of the tasks that find room beside the actors decode; the other half is for encode and publish.
    tasks = int((cpus - first * pool.actor_cpus) / pool.task_cpus) * actors // first
    decoders = max(1, tasks // 2)
    return replace(pool, decoders=decoders, encoders=max(1, tasks - decoders), min_actors=min_actors)
