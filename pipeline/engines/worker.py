"""One process of the local engine: takes rows by a socket, runs all stages, and returns an outcome for each.

    driver --a row a message--> socket      socket --READY, then an outcome a message, in the same order--> driver
                                            socket --between them PART, what is done of a large image--> driver

What waits for storage is done in threads beside the model: the next images are fetched, the last one is published.
Images that are made from text go through the model a batch at a time, all others one by one.

The process ends at once when the driver closes its end, and so also when the driver is killed, even in the middle of an
image: the destination may belong to another run by then.
"""

import logging
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from imgtx.models.generation import images_per_call
from imgtx.models.info import ModelInfo
from pipeline.spec import Job
from pipeline.tables.rows import Row, rows_of, to_table
from pipeline.tables.schemas import FINISHED, WAITED, WORK

if TYPE_CHECKING:
    # Imports torch, which the driver does without.
    from pipeline.stages.all_in_one import AllStages

log = logging.getLogger("imgtx.pipeline")

READY, NO_MODEL = b"ready", b"no model"
# No outcome begins so.
PART = b"part "
# An empty message: end after the image in hand.
LAST = b""
# For a stopped process to remove its temporary files; then it ends in any case.
STOP_SECONDS = 5.0
# Fetched ahead of the model: at most so many images, and of so many bytes together unless it is one.
FETCHED_IMAGES, FETCHED_BYTES = 4, 64 << 20
# Images that are published while the next ones are in hand.
PUBLISHED = 1
# Between two rows that the driver sends together.
BETWEEN_ROWS = 0.01


def serve(connection: Connection, job: Job, device: str | None, stages: "AllStages | None") -> None:
    """Serve the driver until it says LAST or is gone. stages: None to load the model here."""
    signal.signal(signal.SIGTERM, _stop)
    inbox = Inbox(connection, _end)
    # BrokenPipeError, ConnectionResetError: the driver is gone.
    with suppress(BrokenPipeError, ConnectionResetError):
        if stages := stages or load(job, device, connection):
            connection.send_bytes(READY + str(os.getpid()).encode())
            serving = Serving(stages, inbox, connection, images_per_call(job.info))
            stages.transform.reporter.send = serving.report
            serving.run()


def load(job: Job, device: str | None, connection: Connection) -> "AllStages | None":
    """Load the model; where that fails, tell the driver why and return None."""
    from pipeline.stages.all_in_one import AllStages

    try:
        return AllStages(job, device)
    except Exception as error:
        connection.send_bytes(NO_MODEL + f"{type(error).__name__}: {error}".encode())
        return None


def _stop(signum: int, frame: Any) -> None:
    raise SystemExit


class Inbox:
    """The rows that the driver has sent, read by a thread of its own, which calls `gone` when the driver is.

    last: whether the driver wants no further images than the one in hand.
    """

    def __init__(self, connection: Connection, gone: Callable[[], None]):
        self.last = False
        self._connection, self._gone = connection, gone
        self._rows: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._receive, daemon=True).start()

    def take(self, seconds: float | None) -> Row | None:
        """Return the next row; None where there is none after so long (None: ever), or after LAST."""
        try:
            message = self._rows.get(timeout=seconds) if seconds != 0 else self._rows.get_nowait()
        except queue.Empty:
            return None
        if message == LAST:
            return None
        batch = pa.ipc.read_record_batch(pa.py_buffer(message), WORK)
        return next(rows_of(pa.Table.from_batches([batch])))

    def _receive(self) -> None:
        try:
            while True:
                message = self._connection.recv_bytes()
                self.last |= message == LAST
                self._rows.put(message)
        except (EOFError, OSError):
            self._gone()


def _end() -> None:
    """End this process: at once if the main thread can, which removes temporary files; else after a while."""
    main_thread = threading.main_thread().ident
    assert main_thread
    signal.pthread_kill(main_thread, signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


def most_begun(info: ModelInfo) -> int:
    """Return how many images a process has begun and not answered at most: those in hand, and those published."""
    return images_per_call(info) + PUBLISHED


class Serving:
    """The work of one process: images one after the other, what waits for storage beside them."""

    def __init__(self, stages: "AllStages", inbox: Inbox, connection: Connection, together: int = 1):
        self.stages, self.inbox, self.connection, self.together = stages, inbox, connection, together
        self.most_ahead = max(FETCHED_IMAGES, 2 * together)
        self.fetching = ThreadPoolExecutor(FETCHED_IMAGES)
        # One thread, because the driver expects outcomes in the order of its rows.
        self.publishing = ThreadPoolExecutor(1)
        self.room = threading.Semaphore(PUBLISHED)
        # Two threads send: this one what is done of an image, the one that publishes the outcomes.
        self.sending = threading.Lock()

    def run(self) -> None:
        """Work until the driver has no more images."""
        free_since = time.perf_counter()
        try:
            for rows in self._fetched():
                waited = time.perf_counter() - free_since
                for row in self.stages.here(rows):
                    made = time.perf_counter()
                    self.room.acquire()
                    row[WAITED.name], waited = waited + time.perf_counter() - made, 0.0
                    self.publishing.submit(self._publish, row)
                free_since = time.perf_counter()
        finally:
            self.fetching.shutdown(wait=False, cancel_futures=True)
            self.publishing.shutdown()

    def report(self, part: bytes | None) -> None:
        """Tell the driver what the model has done of an image; None, when it is done, is of no interest to it."""
        # OSError: the driver is gone, which the inbox notices too.
        with self.sending, suppress(OSError):
            if part:
                self.connection.send_bytes(PART + part)

    def _fetched(self) -> Iterator[list[Row]]:
        """Yield rows in their order, those that go through the model together, once they are fetched."""
        coming: deque[tuple[int, Future[Row]]] = deque()
        while True:
            while len(coming) < self.most_ahead and sum(size for size, _ in coming) < FETCHED_BYTES:
                # Rows for the same call are on their way.
                patience = None if not coming else BETWEEN_ROWS if len(coming) < self.together else 0
                row = self.inbox.take(patience)
                if row is None:
                    break
                coming.append((row["size"], self.fetching.submit(self.stages.ahead, row)))
            if self.inbox.last:
                return
            yield [coming.popleft()[1].result() for _ in range(min(self.together, len(coming)))]

    def _publish(self, row: Row) -> None:
        try:
            (outcome,) = to_table([self.stages.behind(row)], FINISHED).to_batches()
            with self.sending:
                self.connection.send_bytes(outcome.serialize())
            self.room.release()
        except OSError:
            # The driver is gone, which the inbox notices too.
            return
        except BaseException:
            # Without its outcome the driver would take the next one for it: the image is missing instead.
            log.exception("bug: no outcome of %r", row["key"])
            os._exit(1)
