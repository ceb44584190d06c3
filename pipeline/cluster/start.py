"""Start a private Ray on this machine and end it, with everything that belongs to it."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgtx.errors import ClusterError, first_line
from pipeline.cluster.machine import RayEndedError, check_machine, object_folder, ray_folder
from pipeline.cluster.memory import RAY_BASE, object_store_bytes, workers_that_fit
from pipeline.cluster.private import local_daemon_died, log_folder, patient_start, shut_down

log = logging.getLogger("imgtx.pipeline")

QUIETLY: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
# A machine with other work needs minutes. A process that ends while Ray starts is noticed at once.
START_SECONDS = 600.0
# A port may be taken between the moment when Ray finds it free and the moment when it uses it.
START_ATTEMPTS = 2
# Files of Ray's logs that say why it did not start, those that say it most clearly first.
TELLING = ("raylet.err", "gcs_server.err", "raylet.out", "gcs_server.out", "dashboard_agent.err")


@contextmanager
def started_ray() -> Iterator[None]:
    """Start a private Ray, which ends with the block; ClusterError where it cannot start."""
    check_machine()
    with ray_folder() as folder:
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                _start(folder)
                break
            except Exception as error:
                if attempt == START_ATTEMPTS:
                    raise ClusterError(
                        f"Ray did not start on this machine ({first_line(error)}{_last_words(folder)}): free some "
                        "memory and CPU and run the same command again, or take --engine local"
                    ) from error
                log.warning("Ray did not start at attempt %d: %s", attempt, first_line(error))
        with shut_down_at_the_end():
            yield


def _start(folder: Path) -> None:
    import ray

    try:
        with own_signals(), stderr_closed(), patient_start(START_SECONDS):
            ray.init(
                address="local",
                # None: Ray counts the cores itself.
                num_cpus=cores if (cores := workers_that_fit(RAY_BASE)) < (os.cpu_count() or 1) else None,
                include_dashboard=False,
                object_store_memory=object_store_bytes(),
                _temp_dir=str(folder),
                _plasma_directory=object_folder(folder),
                **QUIETLY,
            )
    except SystemExit:
        # Ray's handler of SIGTERM while it starts.
        raise KeyboardInterrupt from None


@contextmanager
def own_signals() -> Iterator[None]:
    """Restore the handler of SIGTERM: Ray installs one of its own, which aborts."""
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, on_terminate)


@contextmanager
def shut_down_at_the_end() -> Iterator[None]:
    """Shut Ray down at the end of the block, or disconnect from a cluster."""
    try:
        yield
    finally:
        # Shutting a dead Ray down would wait until its C++ side ends this process.
        if not local_daemon_died():
            with stderr_closed():
                shut_down()


@contextmanager
def stderr_closed() -> Iterator[None]:
    """Send file descriptor 2 to /dev/null: Ray's C++ side prints there even when its logging is off."""
    try:
        kept = os.dup(2)
    except OSError:
        # It is closed already.
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def ray_ended() -> RayEndedError:
    """Return the error for a local Ray whose processes have ended."""
    return RayEndedError(
        f"Ray's own processes ended, perhaps for want of memory; their logs are in {log_folder()}"
    )


def _last_words(folder: Path) -> str:
    """Return the last line of the log that says most clearly why Ray did not start, and where its logs are."""
    logs = sorted(folder.glob("session_*_*/logs"))
    if not logs:
        return ""
    for name in TELLING:
        path = logs[-1] / name
        lines = path.read_text(errors="replace").split("\n") if path.is_file() else []
        # Of a failed check without its stack trace.
        said = [line.strip() for line in lines if line.strip() and "(+0x" not in line and "***" not in line]
        if said:
            return f"; {name} ends with: {said[-1][-300:]}; all logs are in {logs[-1]}"
    return f"; its logs are in {logs[-1]}"
