"""The S3 server of the tests ends with the process that started it, even if a test run is killed."""

import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.support.s3server import serving

ROOT = Path(__file__).parents[2]


def alive(process: psutil.Process) -> bool:
    """A zombie does not count: no process needs to wait for it if process 1 does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_two_servers_have_two_addresses():
    with serving() as one, serving() as other:
        assert one.url != other.url
        one.post("/moto-api/reset")
        assert one.requests() == [("POST", "/moto-api/reset", 200)]
        assert other.requests() == []


def test_the_server_ends_with_a_killed_process():
    code = (
        "import time; from tests.support.s3server import start\n"
        "server = start(); print(server.process.pid, server.log, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert starter.stdout
    pid, log = starter.stdout.readline().split()
    server = psutil.Process(int(pid))
    assert server.is_running()
    starter.kill()
    starter.wait()
    starter.stdout.close()
    deadline = time.monotonic() + 60
    while alive(server):
        assert time.monotonic() < deadline, "the server outlives the process that started it"
        time.sleep(0.05)
    Path(log).unlink()
