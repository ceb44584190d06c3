"""`imgtx upscale` as a user starts it, in a process group of its own, to be killed and started again."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pipeline.storage import open_store
from tests.archive import Destination, fill, look, save_tiny_model

COUNT = 120
WITHIN = 200.0  # seconds for a run to come up or to end, on a machine that does other work too


@dataclass(frozen=True)
class Command:
    """A running `imgtx upscale`. `log` holds what it says."""

    process: subprocess.Popen
    destination: Path
    log: Path

    def finish(self) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(WITHIN)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """As a terminal does on Ctrl-C: to every process of the group."""
        os.killpg(self.process.pid, number)

    def summary(self) -> dict:
        return json.loads(self.log.read_text().splitlines()[-1])

    def family(self) -> list[psutil.Process]:
        """Everything the command has started: Ray's daemons and workers."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def workers(self) -> list[psutil.Process]:
        """Processes that are at work on images: model actors and codec tasks."""
        return [p for p in self.family() if title(p).startswith(("ray::MapWorker", "ray::Map("))]

    def published(self) -> int:
        """How many output files are there."""
        return sum(len(files) for _, _, files in os.walk(self.destination / "images"))

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Poll until the condition holds (True) or the command has ended (False)."""
        deadline = time.monotonic() + WITHIN
        while not condition():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                pytest.fail(f"nothing happened within {WITHIN} s; the command said: {self.log.read_text()}")
            time.sleep(0.02)
        return True


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


Start = Callable[..., Command]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[Start]:
    """`start(source, destination, *options)`; whatever still runs at the end of the session is killed."""
    logs, started = tmp_path_factory.mktemp("logs"), []
    # Ray runs its workers at nice 15: on a machine that does other work too they starve.
    environment = os.environ | {"RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}

    def start(source: Path, destination: Path, *options: str, **variables: str) -> Command:
        log = logs / f"{len(started)}.log"
        arguments = ["upscale", str(source), str(destination), "--model", model, "--json", *options]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment | variables,
                start_new_session=True,
            )
        started.append(Command(process, destination, log))
        return started[-1]

    yield start
    for command in started:
        if command.process.poll() is None:
            command.signal(signal.SIGKILL)
            command.process.wait()


@dataclass(frozen=True)
class Archive:
    """`count` images under `source`, and what a run that nobody disturbed makes of them."""

    source: Path
    count: int
    undisturbed: Destination


@pytest.fixture(scope="session")
def archive_of(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Archive]:
    @functools.cache
    def make(count: int) -> Archive:
        folder = tmp_path_factory.mktemp(f"archive-of-{count}-")
        fill(open_store(str(folder / "source")), count)
        command = start(folder / "source", folder / "undisturbed")
        assert command.finish() == 0, command.log.read_text()
        return Archive(folder / "source", count, look(str(command.destination)))

    return make


@pytest.fixture
def archive(archive_of: Callable[[int], Archive]) -> Archive:
    return archive_of(COUNT)
