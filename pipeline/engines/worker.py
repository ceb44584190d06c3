"""One process of the local engine: takes rows by a pipe, runs all stages, and returns an outcome for each.

    driver --hello, then one row a message--> stdin      stdout --READY, then one outcome a message--> driver

It ends at once when the driver closes its pipe, and so also when the driver is killed, even in the middle of an image:
the destination may belong to another run by then.
"""

import os
import queue
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from imgtx.models.generation import images_per_call
from pipeline.spec import Job
from pipeline.tables.schemas import WORK
from pipeline.tables.without_pandas import skip_pandas

READY, NO_MODEL = b"ready", b"no model"
# An empty message: end after the image in hand.
LAST = b""
# For a stopped process to remove its temporary files; then it ends in any case.
STOP_SECONDS = 5.0
# Between two rows that the driver sends together.
BETWEEN_ROWS = 0.01


def main() -> None:
    """Serve the driver until it says LAST or is gone."""
    skip_pandas()
    rows, outcomes = _connect()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    job, device = rows.recv()
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(rows, inbox), daemon=True).start()
    # BrokenPipeError: the driver is gone.
    with suppress(BrokenPipeError):
        _serve(job, device, inbox, outcomes)
    # Without the interpreter's own end, which takes torch a while.
    os._exit(0)


def _connect() -> tuple[Connection, Connection]:
    """Return the pipes of rows and outcomes; what a library prints goes to stderr from here on."""
    rows, outcomes = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return rows, outcomes


def _stop(signum: int, frame: Any) -> None:
    raise SystemExit


def _receive(rows: Connection, inbox: "queue.SimpleQueue[bytes]") -> None:
    try:
        while True:
            row = rows.recv_bytes()
            if row == LAST:
                _forget(inbox)
            inbox.put(row)
    except (EOFError, OSError):
        main_thread = threading.main_thread().ident
        assert main_thread
        signal.pthread_kill(main_thread, signal.SIGTERM)
        time.sleep(STOP_SECONDS)
        os._exit(1)


def _forget(inbox: "queue.SimpleQueue[bytes]") -> None:
    with suppress(queue.Empty):
        while True:
            inbox.get_nowait()


def _serve(job: Job, device: str | None, inbox: "queue.SimpleQueue[bytes]", outcomes: Connection) -> None:
    from pipeline.stages.all_in_one import AllStages

    try:
        stages = AllStages(job, device)
    except Exception as error:
        outcomes.send_bytes(NO_MODEL + f"{type(error).__name__}: {error}".encode())
        return
    outcomes.send_bytes(READY)
    together = images_per_call(job.info)
    while (row := inbox.get()) != LAST:
        rows = [row, *_waiting(inbox, together - 1)]
        work = pa.Table.from_batches([pa.ipc.read_record_batch(pa.py_buffer(row), WORK) for row in rows])
        for finished in stages(work):
            for batch in finished.to_batches():
                outcomes.send_bytes(batch.serialize())


def _waiting(inbox: "queue.SimpleQueue[bytes]", most: int) -> list[bytes]:
    """Return the rows that are here or on their way, at most so many."""
    rows: list[bytes] = []
    with suppress(queue.Empty):
        while len(rows) < most:
            if (row := inbox.get(timeout=BETWEEN_ROWS)) == LAST:
                inbox.put(LAST)
                break
            rows.append(row)
    return rows


if __name__ == "__main__":
    main()
