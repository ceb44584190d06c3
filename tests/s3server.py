"""An S3 server for tests: moto in a process of its own, on loopback, with its request log.

with serving() as server:
    server.url, server.requests()
"""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

_COLOUR = re.compile(r"\x1b\[\d*m")
_REQUEST = re.compile(r'"([A-Z]+) (\S+) HTTP/[\d.]+" (\d+)')


@dataclass(frozen=True)
class S3Server:
    """A running server. `log` is the path of its request log."""

    url: str
    process: subprocess.Popen
    log: str

    def requests(self) -> list[tuple[str, str, int]]:
        """(method, path with query, status) of every request so far, in order."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            plain = _COLOUR.sub("", file.read())
        return [(method, path, int(status)) for method, path, status in _REQUEST.findall(plain)]

    def post(self, path: str, body: bytes = b"") -> None:
        """POST to moto's own interface, as "/moto-api/reset"."""
        # As text: of a form, urllib's default, moto sees no body.
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(self.url + path, body, headers, method="POST")
        urllib.request.urlopen(request, timeout=10).close()


def start(*, within: float = 60.0) -> S3Server:
    """A server that answers; raises RuntimeError with its log if it does not `within` seconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tempfile.NamedTemporaryFile(suffix=".imgtx-s3.log", delete=False)  # noqa: SIM115 - closed below
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = S3Server(f"http://127.0.0.1:{port}", process, log.name)
    deadline = time.monotonic() + within
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{server.url}/moto-api/", timeout=5).close()
            return server
        time.sleep(0.1)
    stop(server)
    raise RuntimeError(f"the S3 test server did not start; see {log.name}")


def stop(server: S3Server) -> None:
    """End the server's process, by its id, and wait for it."""
    server.process.terminate()
    try:
        server.process.wait(10)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait(10)


@contextlib.contextmanager
def serving() -> Iterator[S3Server]:
    server = start()
    try:
        yield server
    finally:
        stop(server)
        os.unlink(server.log)
