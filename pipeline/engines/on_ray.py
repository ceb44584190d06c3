"""The Ray engine: a private local Ray or a cluster, one dataset (`pipeline/flow.py`) a pass."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pyarrow as pa

from imgtx.errors import ModelError, RunInterruptedError, WorkersEndedError
from pipeline.cluster.address import address_of
from pipeline.cluster.memory import RAY_BASE
from pipeline.cluster.pool import Pool, size_pool
from pipeline.engines.deaths import Deaths
from pipeline.engines.in_hand import InHand
from pipeline.interrupt import interrupt_main
from pipeline.models.references import is_fetched
from pipeline.spec import Job
from pipeline.stages.part_done import PartDone

log = logging.getLogger("imgtx.run")

# How often Ray is asked whether a worker has loaded the model, and what workers have done of large images.
ASK_SECONDS = 1.0


class RayEngine:
    """Runs passes on the Ray of this process; see `Engine`."""

    def __init__(self, job: Job, pool: Pool, in_hand: InHand):
        self.job, self.pool, self.in_hand, self.whole = job, pool, in_hand, True
        address = address_of(job.spec)
        self.deaths = Deaths(RAY_BASE, pool.actors)
        # Why the run was ended by `_watch`.
        self.fatal: WorkersEndedError | None = None
        ray = f"on the Ray cluster at {address}" if address else "on Ray on this machine"
        self.place = f"{ray}, {pool.actors} model actor{'s' * (pool.actors > 1)}"

    def run(self, work: pa.Table, *, alone: bool) -> Iterator[pa.Table]:
        from pipeline.cluster.private import local_daemon_died, remove_parts
        from pipeline.cluster.session import STALL_SECONDS
        from pipeline.cluster.start import ray_ended
        from pipeline.flow import build_dataset

        pool = self.pool.isolated() if alone else self.pool
        self.whole = True
        self.deaths.begin()
        # Of actors that ended with the last pass. Any error: Ray is ending, which is noticed below.
        with suppress(Exception):
            remove_parts()
        try:
            for rows in build_dataset(work, self.job, pool).iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                self.deaths.image_finished()
                yield rows
        except Exception as error:
            # Ray gave the dataset up; every key without a row is planned again, so nothing is lost by continuing.
            if not _is_ray_failure(error):
                raise
            if type(error).__name__ == "ExecutionTimeoutError":
                # No image is to blame: keys without a row stay pending.
                raise RunInterruptedError(f"nothing came back for {STALL_SECONDS / 3600:g} hours") from error
            if getattr(error, "actor_init_failed", False):
                raise ModelError(_why_no_model(self.job, error)) from error
            self.whole = False
            log.warning("Ray ended a pass early: %s", str(error).splitlines()[0][:200])
        # The exception of a lost block holds this pass's actors in a reference cycle, and these hold their CPUs: the
        # next pass would wait for them forever, because a driver that waits never triggers a collection.
        gc.collect()
        # An image that found no Ray must not be blamed for its worker's end.
        if local_daemon_died():
            raise ray_ended()

    def drain(self) -> Iterator[pa.Table]:
        """Nothing: Ray's workers end with the dataset."""
        return iter(())

    def machines(self) -> frozenset[str]:
        from pipeline.cluster.session import machines

        return machines()


@contextmanager
def ray_engine(job: Job, images: int, in_hand: InHand, ready: Callable[[], None]) -> Iterator[RayEngine]:
    """Start or join Ray for a run over `images` images; what this process has started ends with the block.

    in_hand: gets what is done of images that are not finished. ready: called as soon as one actor has loaded the model.
    Both in a thread of their own.
    """
    from pipeline.cluster.machine import RayEndedError
    from pipeline.cluster.session import configure_data, ray_session

    over, started = threading.Event(), list[RayEngine]()
    deaths = Deaths(RAY_BASE, 0)
    try:
        with ray_session(job.spec) as resources:
            pool = size_pool(job.spec, resources, images)
            configure_data(pool)
            engine = RayEngine(job, pool, in_hand)
            started.append(engine)
            threading.Thread(
                target=_watch, args=(engine, ready, over), daemon=True, name="imgtx-ray-watch"
            ).start()
            try:
                yield engine
            finally:
                # Before Ray is shut down: what asks it then would start another.
                over.set()
    except KeyboardInterrupt:
        if started and started[0].fatal:
            raise started[0].fatal from None
        raise
    except RayEndedError as error:
        if deaths.for_memory:
            raise deaths.too_little_memory() from error
        raise


def _watch(engine: RayEngine, ready: Callable[[], None], over: threading.Event) -> None:
    """Call `ready` once a worker has loaded the model, and note what workers have done of large images.

    End the run where workers end again and again.

    Ray restarts them without end, and its calls do not return meanwhile.
    """
    from pipeline.cluster.private import a_worker_is_ready, actor_restarts, stored_parts

    is_ready, before = False, 0
    while not over.wait(ASK_SECONDS):
        # Any error: Ray is ending, which is noticed elsewhere.
        with suppress(Exception):
            if not is_ready and a_worker_is_ready():
                is_ready = True
                ready()
            restarts = actor_restarts()
            engine.deaths.count += max(0, restarts - before)
            before = restarts
            engine.in_hand.look(lambda: [PartDone.from_bytes(part) for part in stored_parts()])
        try:
            engine.deaths.check()
        except WorkersEndedError as error:
            engine.fatal = error
            interrupt_main()
            return


def _why_no_model(job: Job, error: Exception) -> str:
    cause = str(error).strip().splitlines()[-1]
    if "--compile" in cause:
        return f"--model {job.spec.model} could not be compiled by a worker: {cause}"
    if "emulates it" in cause:
        return f"--model {job.spec.model} does not run on a worker: {cause}; or take machines that have it"
    needs = "to reach it, with credentials," if is_fetched(job.spec.model) else "the file under this path"
    return (
        f"--model {job.spec.model} could not be loaded by a worker ({cause}): every machine of the cluster needs "
        f"{needs} and room for it"
    )


def _is_ray_failure(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] == "ray"
