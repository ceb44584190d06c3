"""Start a private Ray or join a cluster, notice when Ray dies, set Ray Data's options."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pipeline.cluster.address import Addressed, address_of, no_cluster
from pipeline.cluster.environment import (
    JOINED_SETTINGS,
    WORKER_ENVIRONMENT,
    joined_environment,
    local_settings,
)
from pipeline.cluster.messages import messages_in_a_file
from pipeline.cluster.pool import Pool
from pipeline.cluster.private import local_daemon_died, unheard_ray
from pipeline.cluster.start import (
    QUIETLY,
    own_signals,
    ray_ended,
    shut_down_at_the_end,
    started_ray,
    stderr_closed,
)
from pipeline.interrupt import interrupt_main
from pipeline.spec import RunSpec

WATCH_SECONDS = 1.0
# Without one finished image: the largest that is admitted takes three hours on a slow core.
STALL_SECONDS = 6 * 3600


@contextmanager
def ray_session(spec: Addressed) -> Iterator[dict[str, float]]:
    """Start a private local Ray, or join the cluster at `address_of(spec)`; yields its resources.

    A session that already runs in this process is used and not shut down. Raises ClusterError where Ray cannot be
    started or joined, RayEndedError where the daemons of a local Ray die.
    """
    settings = JOINED_SETTINGS if address_of(spec) else local_settings()
    for name, value in (WORKER_ENVIRONMENT | settings).items():
        os.environ.setdefault(name, value)
    import ray

    with ExitStack() as stack, unheard_ray():
        if not ray.is_initialized():
            stack.enter_context(messages_in_a_file())
            stack.enter_context(_joined(spec) if address_of(spec) else started_ray())
        stop = threading.Event()
        watch = threading.Thread(target=_interrupt_when_ray_ends, args=(stop,), daemon=True)
        watch.start()
        try:
            yield ray.cluster_resources()
        except KeyboardInterrupt:
            if local_daemon_died():
                raise ray_ended() from None
            raise
        finally:
            stop.set()
            watch.join()


def _interrupt_when_ray_ends(stop: threading.Event) -> None:
    """Interrupt the main thread when Ray is dead, before its C++ side ends this process without a message."""
    while not stop.wait(WATCH_SECONDS):
        if local_daemon_died():
            interrupt_main()
            return


@contextmanager
def _joined(spec: Addressed) -> Iterator[None]:
    address = address_of(spec)
    try:
        with own_signals(), stderr_closed():
            import ray

            ray.init(address=address, runtime_env=joined_environment(), **QUIETLY)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise no_cluster(spec, error) from error
    with shut_down_at_the_end():
        yield


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
