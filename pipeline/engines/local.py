"""The local engine: processes of this machine, one image at a time in each, without Ray.

Each process has two pipes to the driver (`pipeline/engines/worker.py`). The driver knows which image each has in hand,
so that one that ends its process is known too: its row is missing, and the others that the process was sent go to the
next. A process that ended is replaced. Images that are made from text are in hand a batch at a time.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import IO

import pyarrow as pa

from imgtx.errors import ModelError, RunInterruptedError
from imgtx.models.generation import images_per_call
from pipeline.cluster.environment import WORKER_ENVIRONMENT
from pipeline.cluster.pool import Pool
from pipeline.engines.choice import uses_gpu
from pipeline.engines.cores import usable_cores
from pipeline.engines.worker import LAST, NO_MODEL, READY, STOP_SECONDS
from pipeline.spec import Job, RunSpec
from pipeline.tables.schemas import FINISHED, WORK

# The most rows that a process has been sent and not answered: the next ones wait in its pipe, undecoded.
MAX_SENT = 16
# Outcomes are handed on together, at most so many and after so long.
HANDED_ROWS, HANDED_SECONDS = 64, 0.25
# Processes in a row that end before their model is loaded: when a run starts, and once one has been loaded, as many as
# it takes for the system to find memory again.
STARTS, RESTARTS = 3, 30
# After an interruption, for the images in hand.
DRAIN_SECONDS = 5.0
# Without one finished image: the largest that is admitted takes three hours on a slow core.
STALL_SECONDS = 6 * 3600


class Worker:
    """One process, and what it was sent. `sent` holds row numbers; the first are the images in its hand."""

    def __init__(self, job: Job, device: str | None, errors: IO[bytes]):
        environment = os.environ | WORKER_ENVIRONMENT
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.engines.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            # Ctrl-C is the driver's business.
            process_group=0,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.rows = Connection(os.dup(self.process.stdin.fileno()), readable=False)
        self.outcomes = Connection(os.dup(self.process.stdout.fileno()), writable=False)
        self.process.stdin.close()
        self.process.stdout.close()
        self.ready = False
        self.sent: deque[int] = deque()
        self._say((job, device))

    def _say(self, hello: object) -> None:
        with suppress(BrokenPipeError):
            self.rows.send(hello)

    def send(self, number: int, row: pa.RecordBatch) -> None:
        """Send a row. A process that has ended is noticed where its outcomes are read."""
        self.sent.append(number)
        with suppress(BrokenPipeError):
            self.rows.send_bytes(row.serialize())

    def receive(self) -> bytes | None:
        """Return the next message, None where the process has ended."""
        try:
            return self.outcomes.recv_bytes()
        except (EOFError, OSError):
            return None

    def finish(self) -> None:
        """Ask it to end after the image in its hand."""
        with suppress(OSError):
            self.rows.send_bytes(LAST)

    def stop(self) -> None:
        """Ask it to end now."""
        self.process.terminate()
        self.rows.close()

    def end(self, seconds: float) -> None:
        """Wait for its end, at most so long; then it is killed."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            self.outcomes.close()


class LocalEngine:
    """Runs passes in processes of its own; see `Engine`."""

    whole = True

    def __init__(self, job: Job, pool: Pool, errors: IO[bytes]):
        self.job, self.pool, self.errors = job, pool, errors
        self.together = images_per_call(job.info)
        self.device = None if pool.actor_gpus else "cpu"
        self.place = (
            f"on this machine, {pool.actors} process{'es' * (pool.actors > 1)} (--engine ray for Ray)"
        )
        self.workers: list[Worker] = []
        self.started, self.failed_starts = False, 0
        self._start(pool.actors)

    def wait(self) -> None:
        """Wait until one process has loaded the model; ModelError or RunInterruptedError where none can."""
        while not any(worker.ready for worker in self.workers):
            self._start(1)
            for worker in self._heard(HANDED_SECONDS):
                self._take(worker, [], deque())

    def run(self, work: pa.Table, *, alone: bool) -> Iterator[pa.Table]:
        (rows,) = work.select(WORK.names).combine_chunks().to_batches() or [None]
        waiting = deque(range(work.num_rows))
        came: list[pa.RecordBatch] = []
        handed = heard = time.monotonic()
        while waiting or any(worker.sent for worker in self.workers):
            self._start(1 if alone else min(self.pool.actors, len(waiting)))
            self._send(rows, waiting, alone=alone)
            for worker in self._heard(HANDED_SECONDS):
                heard = time.monotonic()
                self._take(worker, came, waiting)
            now = time.monotonic()
            if came and (len(came) >= HANDED_ROWS or now - handed > HANDED_SECONDS):
                yield pa.Table.from_batches(came, FINISHED)
                came, handed = [], time.monotonic()
            if now - heard > STALL_SECONDS:
                raise RunInterruptedError(f"nothing came back for {STALL_SECONDS / 3600:g} hours")
        if came:
            yield pa.Table.from_batches(came, FINISHED)

    def drain(self) -> Iterator[pa.Table]:
        for worker in self.workers:
            worker.finish()
        deadline = time.monotonic() + DRAIN_SECONDS
        came: list[pa.RecordBatch] = []
        while self.workers and (left := deadline - time.monotonic()) > 0:
            for worker in self._heard(left):
                self._take(worker, came, deque())
        if came:
            yield pa.Table.from_batches(came, FINISHED)

    def machines(self) -> frozenset[str]:
        return frozenset({"this one"})

    def close(self) -> None:
        """End all processes, wherever they are."""
        try:
            for worker in self.workers:
                worker.stop()
            deadline = time.monotonic() + STOP_SECONDS
            for worker in self.workers:
                worker.end(max(0.0, deadline - time.monotonic()))
        finally:
            # After a second Ctrl-C.
            for worker in self.workers:
                worker.process.kill()
            self.workers.clear()

    def _start(self, processes: int) -> None:
        while len(self.workers) < processes:
            self.workers.append(Worker(self.job, self.device, self.errors))

    def _send(self, rows: pa.RecordBatch, waiting: deque[int], *, alone: bool) -> None:
        """Keep processes supplied; towards the end few rows are sent ahead, so that all end together."""
        processes = 1 if alone else self.pool.actors
        for worker in [worker for worker in self.workers if worker.ready][:processes]:
            most = 1 if processes == 1 else min(MAX_SENT, len(waiting) // (2 * processes))
            if self.together > 1 and not alone:
                # The next batch waits beside the one in hand.
                left = len(waiting) + sum(len(other.sent) for other in self.workers)
                most = min(2 * self.together, -(-left // processes))
            while waiting and len(worker.sent) < max(1, most):
                number = waiting.popleft()
                worker.send(number, rows.slice(number, 1))

    def _heard(self, seconds: float) -> list[Worker]:
        """Wait at most so long for messages; returns the workers that have one, or have ended."""
        heard = wait_for([worker.outcomes for worker in self.workers], seconds)
        return [worker for worker in self.workers if worker.outcomes in heard]

    def _take(self, worker: Worker, came: list[pa.RecordBatch], waiting: deque[int]) -> None:
        """Read one message. What a process that ended had not begun waits again."""
        message = worker.receive()
        if message is None:
            self._replace(worker)
            waiting.extendleft(reversed([*worker.sent][self.together :]))
        elif worker.ready:
            worker.sent.popleft()
            came.append(pa.ipc.read_record_batch(pa.py_buffer(message), FINISHED))
        elif message == READY:
            worker.ready, self.started, self.failed_starts = True, True, 0
        else:
            cause = message.removeprefix(NO_MODEL).decode(errors="replace")
            raise ModelError(f"--model {self.job.spec.model} could not be loaded by a worker ({cause})")

    def _replace(self, worker: Worker) -> None:
        """Forget a process that has ended; RunInterruptedError where none can start."""
        self.workers.remove(worker)
        worker.end(STOP_SECONDS)
        if worker.ready:
            return
        self.failed_starts += 1
        if self.failed_starts >= (RESTARTS if self.started else STARTS):
            raise RunInterruptedError(
                f"{self.failed_starts} processes ended before they had loaded the model, perhaps for want of memory "
                f"(exit code {worker.process.returncode}{self._last_words()})"
            )

    def _last_words(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        return next((f": {line.strip()[:200]}" for line in reversed(lines) if line.strip()), "")


@contextmanager
def local_engine(job: Job, images: int) -> Iterator[LocalEngine]:
    """Start an engine for a run over `images` images; its processes end with the block."""
    with tempfile.TemporaryFile() as errors:
        engine = LocalEngine(job, size_local_pool(job.spec, images), errors)
        try:
            engine.wait()
            yield engine
        finally:
            engine.close()


def size_local_pool(spec: RunSpec, images: int) -> Pool:
    """Size the pool: one process a core, or one on the GPU."""
    gpus = 1.0 if uses_gpu(spec) else 0.0
    wanted = spec.workers or (1 if gpus else usable_cores())
    actors = max(1, min(wanted, images))
    return Pool(actors, 1.0, gpus / actors, 1.0, 1, 0, fused=True, decoders=actors, encoders=actors)
