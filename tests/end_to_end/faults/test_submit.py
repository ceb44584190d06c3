"""`imgtx submit` to a head that was started as a user would, with its dashboard and a token."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from pipeline.storage.store import open_store
from tests.end_to_end.faults.conftest import heed_signals
from tests.support.archive import assert_sound, fill, look
from tests.support.code_copy import FLIP, CodeCopy
from tests.support.s3server import S3Server, serving

S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
TOKEN = "a-token-for-tests-only-0123456789abcdef"
# A third of the images: while they are held back, no run over them can end.
HELD = "submitted/many/2/.*"
LINE = re.compile(r"\d+/7 images")
# Seconds after which a command hangs.
WITHIN = 300.0
CHANGING = ("status", "exit_code", "message", "cause", "started", "ended")

pytestmark = [
    pytest.mark.skipif(
        not importlib.util.find_spec("opencensus"), reason="ray[default] is not installed: a head needs it"
    ),
    pytest.mark.timeout(1200),
]


@dataclass
class RunningHead:
    """A `ray start --head --block` in its own process group."""

    process: subprocess.Popen
    address: str
    environment: dict[str, str] = field(repr=False)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *arguments],
            env=self.environment | {"RAY_AUTH_TOKEN": TOKEN} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_signals,
        )

    def imgtx(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=WITHIN)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def submit(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.imgtx(*self.submission(*arguments))

    def submission(self, *arguments: str) -> tuple[str, ...]:
        return ("submit", "--address", self.address, "--packages", "image", *arguments)

    def kill(self) -> None:
        """Kill Ray's daemons, workers and the job's driver all at once, as when a machine is lost."""
        family = (
            [*psutil.Process(self.process.pid).children(recursive=True)]
            if self.process.poll() is None
            else []
        )
        self.process.kill()
        self.process.wait()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in (S3_ENVIRONMENT | {"AWS_ENDPOINT_URL": server.url}).items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def head(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHead]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        # Long enough for a busy machine.
        "RAY_agent_register_timeout_ms": "180000",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    log = tmp_path_factory.mktemp("head") / "head.log"
    # Ray's sockets are in its folder, and their paths may have 107 bytes, too few for pytest's folders.
    with (
        tempfile.TemporaryDirectory(prefix="imgtx-", ignore_cleanup_errors=True) as folder,
        log.open("wb") as said,
    ):
        dashboard, gcs, client, agent = (free_port() for _ in range(4))
        ports = (f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}")
        # The agent of another Ray on this machine may use the default port, and jobs would find no agent.
        ports += (f"--dashboard-agent-listen-port={agent}",)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "start",
                "--head",
                "--block",
                "--num-cpus=2",
                *ports,
            ],
            env=environment | {"RAY_AUTH_TOKEN": TOKEN, "RAY_TMPDIR": folder},
            stdout=said,
            stderr=said,
            start_new_session=True,
            cwd=folder,
        )
        running = RunningHead(process, f"http://127.0.0.1:{dashboard}", environment)
        try:
            wait_until(lambda: answers(running.address), process, log=log)
            yield running
        finally:
            running.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(address: str) -> bool:
    request = urllib.request.Request(f"{address}/api/version", headers={"Authorization": f"Bearer {TOKEN}"})
    with contextlib.suppress(OSError):
        urllib.request.urlopen(request, timeout=2).close()
        return True
    return False


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen, seconds: float = WITHIN, log: Path | None = None
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text() if log else f"it ended with {process.returncode}"
        assert time.monotonic() < deadline, f"nothing happened within {seconds} s"
        time.sleep(0.2)


def wait_until_said(process: subprocess.Popen, words: str) -> None:
    """Read standard error up to the given text; `communicate` returns the rest."""
    assert process.stderr
    said = b""
    # Byte by byte from the pipe itself: a buffer would hide the rest from `communicate`.
    while words.encode() not in said:
        byte = os.read(process.stderr.fileno(), 1)
        assert byte, said.decode()
        said += byte


@pytest.fixture(scope="module")
def place(head: RunningHead, s3_server: S3Server) -> str:
    import boto3

    boto3.client("s3").create_bucket(Bucket="submitted")
    return "s3://submitted"


class TestJobs:
    """The order matters: the last test ends the head."""

    def test_a_token_is_required_and_forwarded(self, head: RunningHead):
        without = head.imgtx("jobs", "list", "--address", head.address, RAY_AUTH_TOKEN="")
        assert (without.returncode, "set RAY_AUTH_TOKEN" in without.stderr) == (2, True), without.stderr
        wrong = head.imgtx("jobs", "list", "--address", head.address, RAY_AUTH_TOKEN="another")
        assert (wrong.returncode, "does not accept this token" in wrong.stderr) == (2, True), wrong.stderr
        right = head.imgtx("jobs", "list", "--address", head.address, "--json")
        assert (right.returncode, right.stdout) == (0, ""), right.stderr

    def test_a_command_is_run_again_until_it_succeeds(self, head: RunningHead, place: str, model: str):
        source = open_store(f"{place}/in")
        fill(source, 6)
        source.write("bad.png", b"none")
        given = ("--shared", "--", "upscale", f"{place}/in", f"{place}/out", "--model", model)
        first = head.submit(*given)
        # The run's exit code: one of seven images failed.
        assert first.returncode == 3, first.stdout + first.stderr
        assert LINE.search(first.stdout)
        assert "listed 7 = written 6 + current 0 + skipped 0 + failed 1" in first.stdout
        assert_sound(look(f"{place}/out"))
        source.delete("bad.png")
        second = head.submit(*given)
        assert second.returncode == 0, second.stdout + second.stderr
        assert "failed with exit code 3: submitting it again" in second.stderr
        assert "listed 6 = written 0 + current 6" in second.stdout
        third = head.submit(*given)
        assert (third.returncode, "starting nothing" in third.stderr) == (0, True), third.stderr
        newest, oldest = self.jobs(head)
        assert newest == oldest | {"id": f"{oldest['id']}-2"} | {n: newest[n] for n in CHANGING}
        assert (newest["exit_code"], oldest["exit_code"]) == (0, 3)

    def test_a_task_added_to_the_local_code_runs_on_the_cluster(
        self, head: RunningHead, place: str, tmp_path: Path
    ):
        code, source = CodeCopy(tmp_path / "code", FLIP), open_store(f"{place}/flip-in")
        fill(source, 3)
        torch.jit.save(torch.jit.script(nn.Identity()), tmp_path / "same.ts")
        command = (
            "flip",
            source.uri,
            f"{place}/flip-out",
            "--model",
            f"torchscript:{tmp_path}/same.ts?scale=1",
        )
        arguments = head.submission("--shared", "--", *command)
        process = code.start(*arguments, **head.environment, RAY_AUTH_TOKEN=TOKEN)
        out, err = process.communicate(timeout=WITHIN)
        assert process.returncode == 0, out + err
        assert "listed 3 = written 3" in out
        assert_sound(look(f"{place}/flip-out"))

    def test_a_job_can_be_detached_found_again_and_stopped(
        self, head: RunningHead, place: str, model: str, s3_server: S3Server
    ):
        fill(open_store(f"{place}/many"), 300)
        with s3_server.holding(HELD):
            follower = head.start(*self.long(head, "long", place, model))
            runs = open_store(f"{place}/many-out")
            wait_until(lambda: any(b.num_rows for b in runs.list("runs/")), follower)
            follower.send_signal(signal.SIGINT)
            _, said = follower.communicate(timeout=WITHIN)
            assert follower.returncode == 130
            assert "imgtx jobs stop long" in said
            second = head.start(*self.long(head, "long", place, model))
            wait_until_said(second, "following it")
            watching = head.start("watch", f"{place}/many-out", "--every", "1")
            wait_until_said(watching, "/300 images")
            stopped = head.imgtx("jobs", "stop", "long", "--address", head.address)
            assert "long stopped" in stopped.stdout, stopped.stdout + stopped.stderr
            out, said = second.communicate(timeout=WITHIN)
            assert second.returncode == 130, said
            # The run had time to record its work.
            assert "pending; run the same command to continue" in out
            _, said = watching.communicate(timeout=WITHIN)
            assert (watching.returncode, "interrupted" in said) == (130, True), said

    def test_the_destination_shows_the_run_when_the_head_is_lost(
        self, head: RunningHead, place: str, model: str, s3_server: S3Server
    ):
        with s3_server.holding(HELD):
            watching = head.start("watch", f"{place}/many-out", "--every", "1", "--wait-for-next")
            wait_until_said(watching, "no run here yet")
            submitted = head.imgtx(*self.long(head, "longer", place, model, "--no-wait"))
            assert submitted.stdout == "longer\n", submitted.stderr
            wait_until(lambda: self.running(f"{place}/many-out"), watching)
            head.kill()
            _, said = watching.communicate(timeout=WITHIN)
        assert (watching.returncode, "killed; the same command continues" in said) == (3, True), said
        after = head.imgtx("watch", f"{place}/many-out")
        assert (after.returncode, "listed 300" in after.stderr) == (3, True), after.stderr

    @staticmethod
    def long(head: RunningHead, name: str, place: str, model: str, *options: str) -> tuple[str, ...]:
        command = ("upscale", f"{place}/many", f"{place}/many-out", "--model", model)
        return head.submission("--id", name, "--shared", *options, "--", *command)

    @staticmethod
    def jobs(head: RunningHead) -> list[dict]:
        listed = head.imgtx("jobs", "list", "--address", head.address, "--json")
        assert listed.returncode == 0, listed.stderr
        return [json.loads(line) for line in listed.stdout.splitlines()]

    @staticmethod
    def running(destination: str) -> bool:
        """Return whether a run is active there, by its newest status."""
        store = open_store(destination)
        keys = [k for b in store.list("runs/") for k in b["key"].to_pylist() if k.endswith("/status.json")]
        return bool(keys) and json.loads(store.read(max(keys)))["state"] == "running"
