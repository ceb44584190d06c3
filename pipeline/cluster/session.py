"""Start a private Ray or join a cluster, notice when Ray dies, set Ray Data's options."""

import _thread
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imgtx.errors import RunInterruptedError, UsageError, first_line
from pipeline.cluster.address import Addressed, address_of, no_cluster
from pipeline.cluster.environment import (
    JOINED_SETTINGS,
    WORKER_ENVIRONMENT,
    joined_environment,
    local_settings,
)
from pipeline.cluster.pool import Pool
from pipeline.cluster.private import local_daemon_died
from pipeline.spec import RunSpec

log = logging.getLogger("imgtx.pipeline")

# Of a local Ray: room for the images in flight. Ray Data holds the stages back when it is full.
OBJECT_STORE_BYTES = 1 << 30
WATCH_SECONDS = 1.0
RAY_ENDED = "Ray's own processes ended, perhaps for want of memory"
# Without one finished image: the largest that is admitted takes three hours on a slow core.
STALL_SECONDS = 6 * 3600
START_ATTEMPTS = 3


@contextmanager
def ray_session(spec: Addressed) -> Iterator[dict[str, float]]:
    """Start a private local Ray, or join the cluster at `address_of(spec)`; yields its resources.

    A session that already runs in this process is used and not shut down. Raises UsageError where Ray cannot be
    started or joined, RunInterruptedError where the daemons of a local Ray die.
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
        # Ray installs a handler of its own, which aborts.
        signal.signal(signal.SIGTERM, on_terminate)
    stop = threading.Event()
    watch = threading.Thread(target=_interrupt_when_ray_ends, args=(stop,), daemon=True)
    watch.start()
    try:
        yield ray.cluster_resources()
    except KeyboardInterrupt:
        if local_daemon_died():
            raise RunInterruptedError(RAY_ENDED) from None
        raise
    finally:
        stop.set()
        watch.join()
        # Shutting a dead Ray down would wait until its C++ side ends this process.
        if ours and not local_daemon_died():
            # Ray reports the tasks that a stop cuts short as failed.
            with _stderr_closed():
                ray.shutdown()


def _interrupt_when_ray_ends(stop: threading.Event) -> None:
    """Interrupt the main thread when Ray is dead, before its C++ side ends this process without a message."""
    while not stop.wait(WATCH_SECONDS):
        if local_daemon_died():
            _thread.interrupt_main()
            return


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Send file descriptor 2 to /dev/null: Ray's C++ side prints there even when its logging is off."""
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
        raise no_cluster(address, error) from error


def _start_local(quiet: dict[str, Any]) -> None:
    """Start a private Ray on this machine.

    Ray gives its own processes 30 s to come up, so that a busy machine may need a second attempt.
    """
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
                    f"Ray did not start on this machine ({first_line(error)}): free some memory and CPU and "
                    f"run the same command again, or give a cluster with --address"
                ) from error
            log.warning("Ray did not start at attempt %d: %s", attempt, error)
        else:
            return


def check_compiles(spec: RunSpec) -> None:
    """Raise UsageError where a local run is to compile its model and this machine has no compiler."""
    if spec.compile and address_of(spec) is None:
        # Imported here: it brings torch, which the drivers of other runs do without.
        from imgtx.inference.compiled import check_compiler

        check_compiler("cpu" if spec.gpus == 0 else None)


def machines() -> frozenset[str]:
    """Return the ids of the nodes that are alive now."""
    import ray

    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


def configure_data(pool: Pool) -> None:
    """Set Ray Data's options for this process.

    Ray's progress bars are off, because we draw our own; lost blocks are tolerated, because the driver counts every
    key itself.
    """
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = STALL_SECONDS
    context.target_max_block_size = pool.block_bytes
    # At lower levels Ray logs a traceback for each lost block.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # Limits on restarts and retries can only be set by the arguments that Ray deprecates for 2.64.
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
