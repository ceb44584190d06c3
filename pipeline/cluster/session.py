"""Ray itself: start or join it, size the pools, set its data context. The only file that knows Ray's knobs."""

import _thread
import json
import logging
import math
import os
import secrets
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from imgtx.errors import RunInterruptedError, UsageError
from pipeline.spec import RunSpec
from pipeline.storage.store import open_store

log = logging.getLogger("imgtx.pipeline")

# glibc returns freed memory to the system at every large free and takes it back page by page; kept, a forward pass
# is 1.3 to 1.6 times faster on a CPU. OMP: one thread an actor, one actor a core.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "OMP_NUM_THREADS": "1",
    "VIPS_CONCURRENCY": "1",  # libvips holds rows for each of its threads, by default one a core
}
# Where storage is, not who asks: these go along to a cluster when they are set here. Credentials never do: what a job
# or a worker is given stands on the dashboard and in the logs of every node.
FORWARDED = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "IMGTX_STORE",
)
ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
# Read by Ray when it is imported or started.
QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal"}  # its C++ side else warns on stderr of restarts that we plan for
# A machine that went without a word closes no connection, and what waits for an answer there waits for as long as
# these say, whenever the cluster has noticed: by Ray's own settings seven minutes. Servers of a cluster that says
# nothing of it take offence at being asked more often than once a minute.
JOINED_SETTINGS = QUIET | {
    "RAY_grpc_client_keepalive_time_ms": "65000",
    "RAY_grpc_client_keepalive_timeout_ms": "20000",
}
LOCAL_SETTINGS = QUIET | {
    # Ray's processes run whatever code reaches their ports. Named for the systems where it is the default, this keeps
    # them on loopback everywhere; and there, other users of the machine lack the token.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # Ray ends workers beyond one a core that idle for a second. Actors hold the cores here: every few tasks would start
    # a new worker, which imports for four seconds of a core.
    "RAY_idle_worker_killing_time_threshold_ms": str(3600 * 1000),
    "RAY_worker_niceness": "0",  # at Ray's own 15 any other program on the machine starves the run
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody takes this machine away: a process less
}
DOORS = ("http://", "https://", "ray://")  # of a head, that no driver goes through
CODE, PACKAGES = Path(__file__).resolve().parents[2], ("imgtx", "pipeline", "jobs")
OBJECT_STORE_BYTES = 1 << 30  # local runs: images in flight; Ray Data holds back the stages when it is full
ROWS_PER_BLOCK = 16  # most images that one decode task takes; a block costs Ray about 60 ms
# Decoded pixels that travel to a model in one block. On a CPU, where a megapixel takes seconds, blocks of one image
# share the work evenly to the end; a GPU wants many tiles at once.
BLOCK_BYTES_CPU, BLOCK_BYTES_GPU = 2 << 20, 32 << 20
WATCH_SECONDS = 1.0
RAY_ENDED = "Ray's own processes ended, perhaps for want of memory"
STALL_SECONDS = 6 * 3600  # without one image: the largest admitted takes three hours on a slow core
START_ATTEMPTS = 3


@dataclass(frozen=True)
class Pool:
    """How the road is laid over the machines. CPUs and GPUs are Ray's logical units."""

    actors: int
    actor_cpus: float
    actor_gpus: float
    task_cpus: float
    rows_per_block: int
    block_bytes: int
    decoders: int = 1
    encoders: int = 1
    min_actors: int = (
        0  # actors to begin with, where the pool grows up to `actors`; 0 for as many as there will be
    )
    tasks_in_flight: int = 2
    restarts: int = (
        -1
    )  # as often as it takes, wherever there is room: an actor that stays dead stalls the pool
    # A call is bound to its actor. Retried, it waits for that one, for ever where its machine is gone and no other has
    # room; given up, its images come back without a row, and run again on the actors that there are.
    retries: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """The actor pool's size in Ray's words."""
        return (
            {"min_size": self.min_actors, "max_size": self.actors}
            if self.min_actors
            else {"size": self.actors}
        )

    def isolated(self) -> "Pool":
        """One image a block and one block an actor: what crashes then was alone."""
        return replace(self, rows_per_block=1, tasks_in_flight=1)


def size_pool(spec: RunSpec, resources: dict[str, float], images: int) -> Pool:
    """Pools from what the cluster has: an actor a GPU, else an actor a core.

    Without GPUs, models and codecs share the cores: actors hold three quarters of each, so that tasks always find
    room (actors that hold every CPU starve the stages before them for ever).
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
        most = spec.workers or most  # a GPU or a core each, which the cluster will have when it has grown
    actors = spec.workers or max(1, int(most))
    actors = max(1, min(actors, images))
    min_actors = min(spec.min_workers, actors) if spec.min_workers and spec.min_workers < actors else 0
    began = min_actors or actors  # what there is room for now
    rows = max(1, min(ROWS_PER_BLOCK, images // (2 * actors)))
    if use_gpu:
        share = min(1.0, most) / math.ceil(actors / max(1, int(most)))  # so that whole actors fit on each GPU
        pool = Pool(actors, min(0.5, cpus / (2 * began)), share, 0.5, rows, BLOCK_BYTES_GPU)
    else:
        # a block in hand and none in waiting: on a CPU the next one takes seconds, and may find another actor idle
        pool = Pool(
            actors, 0.75 * min(1.0, cpus / began), 0.0, 0.25, rows, BLOCK_BYTES_CPU, tasks_in_flight=1
        )
    # half of the tasks that find room beside the actors decode: the other half is for encode and publish
    tasks = int((cpus - began * pool.actor_cpus) / pool.task_cpus) * actors // began
    decoders = max(1, tasks // 2)
    return replace(pool, decoders=decoders, encoders=max(1, tasks - decoders), min_actors=min_actors)


def local_settings() -> dict[str, str]:
    """The environment of a private local Ray, with a token of its own: else Ray writes one into the home folder."""
    return LOCAL_SETTINGS | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


class Addressed(Protocol):
    """A spec that may name the cluster to join."""

    @property
    def address(self) -> str | None: ...


def address_of(spec: Addressed) -> str | None:
    """The cluster to join: the spec's, else RAY_ADDRESS, which Ray sets for every job; None for a private local Ray."""
    address = spec.address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


@contextmanager
def ray_session(spec: Addressed) -> Iterator[dict[str, float]]:
    """Start a private local Ray, or join the cluster at `address_of(spec)`; yields its resources.

    A session that is already running in this process is used and left alone.
    """
    settings = JOINED_SETTINGS if address_of(spec) else local_settings()
    for name, value in (WORKER_ENVIRONMENT | settings).items():
        os.environ.setdefault(name, value)
    import ray

    ours = not ray.is_initialized()
    if ours:
        on_terminate = signal.getsignal(signal.SIGTERM)
        with _stderr_closed():
            _start(spec)
        signal.signal(signal.SIGTERM, on_terminate)  # Ray installs its own, which aborts
    stop = threading.Event()
    watch = threading.Thread(target=_interrupt_when_ray_ends, args=(stop,), daemon=True)
    watch.start()
    try:
        yield ray.cluster_resources()
    except KeyboardInterrupt:
        if ray_has_ended():
            raise RunInterruptedError(RAY_ENDED) from None
        raise
    finally:
        stop.set()
        watch.join()
        if ours and not ray_has_ended():  # a dead one would make us wait until its C++ side ends this process
            with _stderr_closed():  # of tasks that a stop cuts short Ray says that they failed
                ray.shutdown()


def _interrupt_when_ray_ends(stop: threading.Event) -> None:
    """Interrupt the main thread when Ray is gone, before its C++ side ends this process without a word."""
    while not stop.wait(WATCH_SECONDS):
        if ray_has_ended():
            _thread.interrupt_main()
            return


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Nothing reaches file descriptor 2: Ray's C++ side greets there even when it is told to be quiet."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _start(spec: Addressed) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = address_of(spec)
    if not address:
        _start_local(quiet)
        return
    try:
        ray.init(address=address, runtime_env=joined_environment(), **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from error


def joined_environment() -> dict[str, Any]:
    """What workers of a joined cluster get: our variables, where storage is, our own code where no job has brought it.

    Variables that the job's environment sets already are left to it: Ray refuses to be told of one twice.
    """
    job = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    known = (json.loads(job).get("runtime_env") or {}).get("env_vars", {}) if job else {}
    given = WORKER_ENVIRONMENT | forwarded(os.environ)
    variables = {name: value for name, value in given.items() if name not in known}
    code = {} if job else {"py_modules": [str(CODE / package) for package in PACKAGES]}
    return {"env_vars": variables} | code


def forwarded(environment: Mapping[str, str]) -> dict[str, str]:
    """What of this environment says where storage is; UsageError for an endpoint that holds credentials."""
    found = {name: environment[name] for name in FORWARDED if environment.get(name)}
    for name in ENDPOINTS:
        open_store("s3://any", endpoint_url=found.get(name))
    return found


def check_address(address: str | None) -> None:
    """UsageError, within seconds, where nothing listens at `HOST:PORT`, for Ray tries for minutes; and for other doors
    of a cluster than that."""
    if (address or "").startswith(DOORS):
        host = str(urlsplit(address).hostname)
        raise UsageError(
            f"--address {address}: a run's driver works on a machine of the cluster, for Ray Data does not go through "
            f"Ray Client: imgtx submit --address http://{host}:8265 -- upscale ... takes it there; on such a machine "
            f"give HOST:6379 or auto"
        )
    host, colon, port = (address or "").rpartition(":")
    if not colon:
        return  # none, or a word of Ray's such as "auto"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(str(address), error) from error


def check_compiles(spec: RunSpec) -> None:
    """UsageError where a run on this machine is to compile its model, and there is nothing to compile with."""
    if spec.compile and address_of(spec) is None:
        from imgtx.inference.compiled import (
            check_compiler,  # brings torch, which other runs' drivers do without
        )

        check_compiler("cpu" if spec.gpus == 0 else None)


def _no_cluster(address: str, error: Exception) -> UsageError:
    return UsageError(
        f"--address {address}: no Ray cluster answers there ({str(error).splitlines()[0]}); "
        f"give HOST:6379 or auto on a machine of the cluster, or leave it out for a local run"
    )


def _start_local(quiet: dict[str, Any]) -> None:
    """A private Ray on this machine. Ray gives its own processes 30 s to come up: a busy machine needs a second try."""
    import ray

    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(
                address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet
            )
        except Exception as error:
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise UsageError(
                    f"Ray did not start on this machine ({str(error).splitlines()[0]}): free some memory and CPU and "
                    f"run the same command again, or give a cluster with --address"
                ) from error
            log.warning("Ray did not start at attempt %d: %s", attempt, error)
        else:
            return


def ray_has_ended() -> bool:
    """Whether a daemon of the local Ray that this process started is dead; of a joined cluster it cannot tell."""
    import ray

    node = ray._private.worker._global_node  # no public door: everything public hangs or aborts by then
    return node is not None and bool(node.dead_processes())


def machines() -> frozenset[str]:
    """The ids of the nodes that are there now."""
    import ray

    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


def configure_data(pool: Pool) -> None:
    """Ray Data's settings for this process: our own progress, lost blocks tolerated (we count every key ourselves)."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = STALL_SECONDS
    context.target_max_block_size = pool.block_bytes
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # else a traceback for each block that is lost
    # bounds on restarts and retries have no other door yet than the arguments that Ray deprecates for 2.64
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
