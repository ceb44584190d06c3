"""Sizes of the actor and task pools."""

import math
from dataclasses import dataclass, replace

from imgtx.errors import UsageError
from pipeline.spec import RunSpec

# The most images that one decode task takes; a block costs Ray about 60 ms.
ROWS_PER_BLOCK = 16
# Decoded pixels that travel to a model on a GPU in one block: it wants many tiles at once.
BLOCK_BYTES_GPU = 32 << 20
# Source bytes that one actor on CPUs takes at once. Its outcomes reach the driver when all of these images are done:
# small files share the cost of a block, and photos, which take seconds each, come one by one.
BLOCK_BYTES_CPU = 1 << 20


@dataclass(frozen=True)
class Pool:
    """How many actors and tasks run at once, and what each of them holds.

    CPUs and GPUs are Ray's logical units.

    fused: each actor decodes, transforms, encodes and publishes; otherwise actors only transform, and tasks on any
        node do the rest.
    block_bytes: the most that travels to an actor at once: of the source if `fused`, else of decoded pixels.
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

    Without GPUs an actor runs all stages and holds three quarters of a core; other tasks find room beside
    it. With GPUs models and codec tasks share the cores: actors hold at most half of them, because they would
    otherwise starve the stages before them.

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
        share = 0.75 * min(1.0, cpus / first)
        pool = Pool(actors, share, 0.0, share, rows, BLOCK_BYTES_CPU, fused=True, tasks_in_flight=1)
        return replace(pool, decoders=actors, encoders=actors, min_actors=min_actors)
    # Half of the tasks that find room beside the actors decode; the other half is for encode and publish.
    tasks = int((cpus - first * pool.actor_cpus) / pool.task_cpus) * actors // first
    decoders = max(1, tasks // 2)
    return replace(pool, decoders=decoders, encoders=max(1, tasks - decoders), min_actors=min_actors)
