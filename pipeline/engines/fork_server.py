"""The process that the local engine's workers are forked from: it has imported torch and loaded the model, once.

    driver --hello, then a socket for each worker--> stdin, a socket      the same --READY or NO_MODEL--> driver

It ends when the driver closes its end, with all its workers; if it is killed, so are they. A model on a GPU, or
compiled, cannot be shared by processes: there each worker loads its own.
"""

import ctypes
import gc
import importlib
import logging
import os
import signal
import socket
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from pipeline.engines.worker import READY, STOP_SECONDS, load, serve
from pipeline.spec import Job
from pipeline.storage.store import forget_connections
from pipeline.tables.without_pandas import skip_pandas

if TYPE_CHECKING:
    from pipeline.stages.all_in_one import AllStages

log = logging.getLogger("imgtx.pipeline")

# Where the kernel must kill for memory it shall take a worker, which is replaced, and then this process: not the
# driver. Of /proc/PID/oom_score_adj, from -1000 to 1000.
SERVER_SCORE, WORKER_SCORE = 300, 600
# Of <linux/prctl.h>.
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the driver until it is gone."""
    skip_pandas()
    _offer_to_the_kernel(SERVER_SCORE)
    # Ctrl-C is the driver's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    driver = _connect()
    control = Connection(os.dup(driver.fileno()))
    # BrokenPipeError, ConnectionResetError, EOFError: the driver is gone.
    with suppress(BrokenPipeError, ConnectionResetError, EOFError):
        job, device = control.recv()
        shared = device == "cpu" and not job.recipe.compiled
        if not shared:
            # The same imports, without a model.
            importlib.import_module("pipeline.stages.all_in_one")
        stages = load(job, device, control) if shared else None
        if stages or not shared:
            control.send_bytes(READY)
            control.close()
            _fork_workers(driver, job, device, stages)
    # Without the interpreter's own end, which takes torch a while.
    os._exit(0)


def _connect() -> socket.socket:
    """Return the socket to the driver; what a library prints goes to stderr from here on."""
    driver = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return driver


def _fork_workers(driver: socket.socket, job: Job, device: str | None, stages: "AllStages | None") -> None:
    signal.signal(signal.SIGCHLD, _reap)
    # What exists by now is not looked at again, so that its pages stay shared.
    gc.collect()
    gc.freeze()
    server = os.getpid()
    while True:
        _, sockets, _, _ = socket.recv_fds(driver, 1, 1)
        if not sockets:
            break
        with suppress(OSError):
            # Without memory for another process: the driver finds the socket closed.
            if os.fork() == 0:
                _work(driver, sockets[0], server, job, device, stages)
        os.close(sockets[0])
    _end_workers()


def _work(
    driver: socket.socket, own: int, server: int, job: Job, device: str | None, stages: "AllStages | None"
) -> None:
    """Be a worker to the end of this process. server: the process that it was forked from."""
    code = 1
    try:
        _end_with(server)
        _offer_to_the_kernel(WORKER_SCORE)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        driver.close()
        forget_connections()
        serve(Connection(own), job, device, stages)
        code = 0
    except Exception:
        log.exception("bug in a worker process")
    finally:
        os._exit(code)


def _end_with(server: int) -> None:
    """Let the kernel kill this process when the process `server` ends, which has forked it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != server:
        os._exit(1)


def _offer_to_the_kernel(score: int) -> None:
    # Not Linux, or a sandbox without this file.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(score))


def _reap(signum: int, frame: Any) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_workers() -> None:
    """Wait until all workers have ended, which they do by themselves; then end what is left, with this process."""
    deadline = time.monotonic() + STOP_SECONDS + 1
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            os.waitpid(-1, os.WNOHANG)
            time.sleep(0.01)
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
