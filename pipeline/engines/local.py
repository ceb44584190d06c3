"""The local engine: processes of this machine, one image at a time in each, without Ray.

They are forked from one process that has loaded the model (`pipeline/engines/fork_server.py`), so that each further
one costs milliseconds and shares the model's memory. Each has a socket to the driver (`pipeline/engines/worker.py`).
The driver knows which images each has begun, so that those of a process that ended are known too: their rows are
missing, and the others that the process was sent go to the next. A process that ended is replaced.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import IO

import pyarrow as pa

from imgtx.errors import ModelError, RunInterruptedError
from imgtx.inference.cores import usable_cores
from imgtx.models.generation import images_per_call
from pipeline.cluster.environment import WORKER_ENVIRONMENT
from pipeline.cluster.memory import LOCAL_BASE, workers_that_fit
from pipeline.cluster.pool import Pool
from pipeline.engines.choice import uses_gpu
from pipeline.engines.deaths import Deaths
from pipeline.engines.in_hand import InHand
from pipeline.engines.worker import LAST, NO_MODEL, PART, READY, STOP_SECONDS, most_begun
from pipeline.spec import Job, RunSpec
from pipeline.stages.part_done import PartDone
from pipeline.tables.schemas import FINISHED, WORK

log = logging.getLogger("imgtx.pipeline")

# The most rows that a process has been sent and not answered: the next ones wait in its socket, undecoded.
MAX_SENT = 16
# Outcomes are handed on together, at most so many and after so long.
HANDED_ROWS, HANDED_SECONDS = 64, 0.25
# Processes in a row that end before their model is loaded: when a run starts, and once one has been loaded, as many as
# it takes for the system to find memory again.
STARTS, RESTARTS, RESTART_SECONDS = 3, 30, 1.0
# After an interruption, for the images in hand.
DRAIN_SECONDS = 5.0
# Without one finished image: the largest that is admitted takes three hours on a slow core.
STALL_SECONDS = 6 * 3600


class Peer:
    """A process of the run at the other end of a socket."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.connection = Connection(os.dup(self.socket.fileno()))
        self.theirs = theirs

    def receive(self) -> bytes | None:
        """Return the next message, None where the process has ended."""
        try:
            return self.connection.recv_bytes()
        except (EOFError, OSError):
            return None

    def stop(self) -> None:
        """Let it end now: that is what it does where nobody writes to it any more."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
        self.connection.close()


class ForkServer(Peer):
    """The process that workers are forked from; with them it has a process group of its own."""

    def __init__(self, job: Job, device: str | None, errors: IO[bytes]):
        super().__init__()
        environment = os.environ | WORKER_ENVIRONMENT
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.engines.fork_server"],
            stdin=self.theirs.fileno(),
            stdout=errors,
            stderr=errors,
            env=environment,
            # Ctrl-C is the driver's business.
            process_group=0,
        )
        self.theirs.close()
        self.ready = False
        with suppress(BrokenPipeError):
            self.connection.send((job, device))

    def fork(self) -> "Worker":
        """Ask for a worker. One that cannot be had is noticed where its messages are read."""
        worker = Worker()
        with suppress(OSError):
            socket.send_fds(self.socket, [b"w"], [worker.theirs.fileno()])
        worker.theirs.close()
        return worker

    def end(self, seconds: float) -> None:
        """Wait for its end and that of its workers, at most so long; then they are killed."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Worker(Peer):
    """One process, and what it was sent. `sent` holds row numbers; the first is the one that it answers next.

    pid: known once it is ready.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pid = 0
        self.sent: deque[int] = deque()

    def send(self, number: int, row: pa.RecordBatch) -> None:
        """Send a row. A process that has ended is noticed where its messages are read."""
        self.sent.append(number)
        with suppress(OSError):
            self.connection.send_bytes(row.serialize())

    def finish(self) -> None:
        """Ask it to end after the image in its hand."""
        with suppress(OSError):
            self.connection.send_bytes(LAST)


class LocalEngine:
    """Runs passes in processes of its own; see `Engine`."""

    whole = True

    def __init__(self, job: Job, pool: Pool, errors: IO[bytes], in_hand: InHand):
        self.job, self.pool, self.errors, self.in_hand = job, pool, errors, in_hand
        self.together, self.begun = images_per_call(job.info), most_begun(job.info)
        self.device = None if pool.actor_gpus else "cpu"
        self.place = place_of(pool)
        self.workers: list[Worker] = []
        self.server: ForkServer | None = None
        self.started, self.failed_starts = False, 0
        self.deaths = Deaths(LOCAL_BASE, pool.actors)

    def wait(self) -> None:
        """Wait until one process has loaded the model; ModelError or RunInterruptedError where none can."""
        while not any(worker.pid for worker in self.workers):
            self._start(1)
            self._listen(HANDED_SECONDS, [], deque())

    def run(self, work: pa.Table, *, alone: bool) -> Iterator[pa.Table]:
        (rows,) = work.select(WORK.names).combine_chunks().to_batches() or [None]
        waiting = deque(range(work.num_rows))
        came: list[pa.RecordBatch] = []
        handed = heard = time.monotonic()
        self.deaths.begin()
        while waiting or any(worker.sent for worker in self.workers):
            self._start(1 if alone else min(self.pool.actors, len(waiting)))
            self._send(rows, waiting, alone=alone)
            if self._listen(HANDED_SECONDS, came, waiting):
                heard = time.monotonic()
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
            self._listen(left, came, deque())
        if came:
            yield pa.Table.from_batches(came, FINISHED)

    def machines(self) -> frozenset[str]:
        return frozenset({"this one"})

    def close(self) -> None:
        """End all processes, wherever they are."""
        try:
            for worker in self.workers:
                worker.stop()
            if self.server:
                self.server.stop()
                self.server.end(STOP_SECONDS + 2)
        finally:
            # After a second Ctrl-C.
            if self.server and self.server.process.poll() is None:
                self.server.end(0)
            for peer in (*self.workers, *([self.server] if self.server else [])):
                peer.close()
            self.workers.clear()

    def _start(self, processes: int) -> None:
        missing = processes - len(self.workers)
        if missing > 0 and not self.server:
            self.server = ForkServer(self.job, self.device, self.errors)
        if self.server and self.server.ready:
            self.workers += [self.server.fork() for _ in range(missing)]

    def _send(self, rows: pa.RecordBatch, waiting: deque[int], *, alone: bool) -> None:
        """Keep processes supplied; towards the end few rows are sent ahead, so that all end together."""
        processes = 1 if alone else self.pool.actors
        for worker in [worker for worker in self.workers if worker.pid][:processes]:
            most = 1 if alone else min(MAX_SENT, len(waiting) // (2 * processes))
            if self.together > 1 and not alone:
                # The next batch waits beside the one in hand.
                left = len(waiting) + sum(len(other.sent) for other in self.workers)
                most = min(2 * self.together, -(-left // processes))
            while waiting and len(worker.sent) < max(1, most):
                number = waiting.popleft()
                worker.send(number, rows.slice(number, 1))

    def _listen(self, seconds: float, came: list[pa.RecordBatch], waiting: deque[int]) -> bool:
        """Wait at most so long for messages, and take one of each process that has any; returns whether one had."""
        peers: list[Peer] = [*self.workers, *([self.server] if self.server else [])]
        heard = wait_for([peer.connection for peer in peers], seconds)
        for peer in peers:
            if peer.connection in heard:
                if isinstance(peer, Worker):
                    self._take(peer, came, waiting)
                else:
                    self._hear_server()
        return bool(heard)

    def _hear_server(self) -> None:
        assert self.server
        message = self.server.receive()
        if message == READY:
            self.server.ready = True
        elif message is None:
            # Its workers end with it.
            server, self.server = self.server, None
            server.close()
            server.process.wait()
            if not server.ready:
                self._count_failed_start(f"exit code {server.process.returncode}")
        else:
            raise self._no_model(message)

    def _take(self, worker: Worker, came: list[pa.RecordBatch], waiting: deque[int]) -> None:
        """Read one message. What a process that ended had not begun waits again."""
        message = worker.receive()
        if message is None:
            self.workers.remove(worker)
            self.in_hand.lose(worker)
            worker.close()
            waiting.extendleft(reversed([*worker.sent][self.begun :]))
            if worker.pid:
                self._count_death()
            else:
                self._count_failed_start("no exit code")
        elif message.startswith(PART):
            self.in_hand.note(worker, PartDone.from_bytes(message.removeprefix(PART)))
        elif worker.pid:
            worker.sent.popleft()
            self.deaths.image_finished()
            came.append(pa.ipc.read_record_batch(pa.py_buffer(message), FINISHED))
        elif message.startswith(READY):
            worker.pid = int(message.removeprefix(READY))
            self.started, self.failed_starts = True, 0
        else:
            raise self._no_model(message)

    def _no_model(self, message: bytes) -> ModelError:
        cause = message.removeprefix(NO_MODEL).decode(errors="replace")
        return ModelError(f"--model {self.job.spec.model} could not be loaded by a worker ({cause})")

    def _count_death(self) -> None:
        """Note that a worker ended; of processes that are killed for memory only half is started again."""
        self.deaths.count += 1
        self.deaths.check()
        if self.deaths.for_memory and self.pool.actors > 1:
            self.pool = replace(self.pool, actors=self.pool.actors // 2)
            log.warning(
                "a worker process was killed for memory: continuing with %d instead of %d",
                self.pool.actors,
                2 * self.pool.actors,
            )

    def _count_failed_start(self, how: str) -> None:
        """Raise where processes cannot start; else wait a moment, if it may be for memory."""
        self.failed_starts += 1
        if self.failed_starts >= STARTS and self.deaths.for_memory:
            raise self.deaths.too_little_memory()
        if self.failed_starts >= (RESTARTS if self.started else STARTS):
            raise RunInterruptedError(
                f"{self.failed_starts} processes ended before they had loaded the model, perhaps for want of memory "
                f"({how}{self._last_words()})"
            )
        if self.started:
            time.sleep(RESTART_SECONDS)

    def _last_words(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        return next((f": {line.strip()[:200]}" for line in reversed(lines) if line.strip()), "")


@contextmanager
def local_engine(job: Job, images: int, in_hand: InHand | None = None) -> Iterator[LocalEngine]:
    """Start an engine for a run over `images` images; its processes end with the block.

    in_hand: gets what is done of images that are not finished.
    """
    with tempfile.TemporaryFile() as errors:
        engine = LocalEngine(job, size_local_pool(job.spec, images), errors, in_hand or InHand())
        try:
            engine.wait()
            yield engine
        finally:
            engine.close()


def place_of(pool: Pool) -> str:
    """Return where images are processed, for the user."""
    processes = f"{pool.actors} process{'es' * (pool.actors > 1)}"
    return f"on this machine, {processes}{' on its GPU' * (pool.actor_gpus > 0)} (--engine ray for Ray)"


def size_local_pool(spec: RunSpec, images: int) -> Pool:
    """Size the pool: one process a core, as far as there is memory, or one on the GPU."""
    gpus = 1.0 if uses_gpu(spec) else 0.0
    wanted = spec.workers or (1 if gpus else min(usable_cores(), workers_that_fit(LOCAL_BASE)))
    actors = max(1, min(wanted, images))
    return Pool(actors, 1.0, gpus / actors, 1.0, 1, 0, fused=True, decoders=actors, encoders=actors)
