"""`imgtx upscale` as a user starts it, in its own process group, to be killed and started again."""

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

import boto3
import psutil
import pytest

from pipeline.cluster.pool import ROWS_PER_BLOCK
from pipeline.storage.objects import TEMPORARY
from pipeline.storage.store import open_store
from tests.support.archive import Destination, fill, look, save_tiny_model
from tests.support.s3server import S3Server, serving

COUNT = 120
RAY_WORKERS = ("ray::MapWorker", "ray::MapBatches", "ray::IDLE")
LOCAL_WORKERS = "pipeline.engines.fork_server"
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
# Seconds after which a run counts as hanging: it takes half a minute, on a busy machine five.
WITHIN = 900.0


@dataclass(frozen=True)
class Command:
    """A running `imgtx upscale`. `log` is its output, `began` its start in nanoseconds since the epoch."""

    process: subprocess.Popen
    destination: Path
    log: Path
    began: int

    def finish(self) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(WITHIN)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send a signal to every process of the group, as a terminal does on Ctrl-C."""
        os.killpg(self.process.pid, number)

    def summary(self) -> dict:
        return json.loads(self.log.read_text().splitlines()[-1])

    def family(self) -> list[psutil.Process]:
        """Return every process that the command has started: Ray's daemons and workers."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def workers(self) -> list[psutil.Process]:
        """Return the processes that work on images. Ray calls a restarted actor idle."""
        return [p for p in self.family() if title(p).startswith(RAY_WORKERS) or LOCAL_WORKERS in title(p)]

    def published(self) -> int:
        """Return how many output files this command has written."""
        count = 0
        for path in (self.destination / "images").rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                fresh = path.stat().st_mtime_ns >= self.began
                count += fresh and path.is_file() and not path.name.startswith(TEMPORARY)
        return count

    def listens_at(self) -> set[str]:
        """Return the addresses on which the command and all that it started listen."""
        found: set[str] = set()
        for process in [psutil.Process(self.process.pid), *self.family()]:
            with contextlib.suppress(psutil.Error):
                sockets = process.net_connections("inet")
                found |= {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
        return found

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Poll until the condition is true (returns True) or the command has ended (False)."""
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


def heed_signals() -> None:
    """Restore SIGINT and SIGHUP: a shell's background jobs and nohup ignore them, and pass that on to children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextlib.contextmanager
def starting(model: str, logs: Path, server: S3Server, engine: str) -> Iterator[Start]:
    """Return `start(source, destination, *options)`; what still runs at the end is killed with its children."""
    started: list[Command] = []
    # Ray runs its workers at nice 15: they starve on a machine with other work.
    environment = os.environ | {"RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
    environment |= S3_ENVIRONMENT | {"AWS_ENDPOINT_URL": server.url}

    def start(source: Path | str, destination: Path, *options: str, **variables: str) -> Command:
        log = logs / f"{len(started)}.log"
        arguments = ["upscale", str(source), str(destination), "--model", model, "--json", *options]
        arguments += ["--engine", engine]
        began = time.time_ns()
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment | variables,
                start_new_session=True,
                preexec_fn=heed_signals,
            )
        started.append(Command(process, destination, log, began))
        return started[-1]

    try:
        yield start
    finally:
        for command in started:
            if command.process.poll() is None:
                family = command.family()
                command.signal(signal.SIGKILL)
                command.process.wait()
                for process in family:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()


@pytest.fixture(params=["ray", "local"])
def engine(request: pytest.FixtureRequest) -> str:
    """Return the engine of the commands; `only_ray` for tests of Ray itself."""
    return request.param


only_ray = pytest.mark.parametrize("engine", ["ray"], indirect=True)


@pytest.fixture
def start(
    tmp_path_factory: pytest.TempPathFactory, model: str, source_server: S3Server, engine: str
) -> Iterator[Start]:
    with starting(model, tmp_path_factory.mktemp("logs"), source_server, engine) as start:
        yield start


@dataclass(frozen=True)
class Archive:
    """`count` images in a bucket at `source`, and what a run of the local engine without faults makes of them."""

    server: S3Server
    bucket: str
    count: int
    undisturbed: Destination

    @property
    def source(self) -> str:
        return f"s3://{self.bucket}"

    @contextlib.contextmanager
    def held(self) -> Iterator[int]:
        """Hold back the last third of the images, so that no run can end before the block does.

        Yields how many images will be written despite that: all but those that share a block with the held ones.
        """
        with self.server.holding(f"{self.bucket}/2/.*"):
            yield self.count * 2 // 3 - ROWS_PER_BLOCK


@pytest.fixture(scope="session")
def source_server() -> Iterator[S3Server]:
    """Start the server of the sources. Only commands get its address; this process's environment is unchanged."""
    with serving() as server:
        yield server


@contextlib.contextmanager
def environment_of(server: S3Server) -> Iterator[None]:
    """Set the variables of the server in this process, as in the commands, until the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in (S3_ENVIRONMENT | {"AWS_ENDPOINT_URL": server.url}).items():
            patch.setenv(variable, value)
        yield


@pytest.fixture(scope="session")
def archive_of(
    model: str, source_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Archive]:
    @functools.cache
    def make(count: int) -> Archive:
        folder = tmp_path_factory.mktemp(f"archive-of-{count}-")
        bucket = f"archive-of-{count}"
        with environment_of(source_server):
            boto3.client("s3").create_bucket(Bucket=bucket)
            fill(open_store(f"s3://{bucket}"), count)
        with starting(model, folder, source_server, "local") as start:
            command = start(f"s3://{bucket}", folder / "undisturbed")
            assert command.finish() == 0, command.log.read_text()
        return Archive(source_server, bucket, count, look(str(command.destination)))

    return make


@pytest.fixture
def archive(archive_of: Callable[[int], Archive]) -> Archive:
    return archive_of(COUNT)
