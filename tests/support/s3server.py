"""An S3 server for tests: moto in a process of its own, on loopback, with its request log.

with serving() as server:
    server.url, server.requests()
    with server.holding(r"bucket/in/2/.*"):
        ...  # a GET of one of these objects gets its second half when the block ends
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

_COLOUR = re.compile(r"\x1b\[\d*m")
_ADDRESS = re.compile(r"Running on (http://127\.0\.0\.1:\d+)\s")
_REQUEST = re.compile(r'"([A-Z]+) (\S+) HTTP/[\d.]+" (\d+)')

# The kernel chooses the port: one that was free a moment ago may be taken. The standard input is a pipe from the
# starting process: when that process ends, even by SIGKILL, the pipe closes and the server ends.
_SERVE = """
import functools, os, re, sys, threading, time
import moto.server
from moto.s3.responses import S3Response
from moto.server import main

# S3 checks If-None-Match and writes in one step; moto takes two, and another thread may run between them.
one_by_one, put_object = threading.Lock(), S3Response.put_object

@functools.wraps(put_object)
def put_object_in_one_step(self):
    with one_by_one:
        return put_object(self)

S3Response.put_object = put_object_in_one_step

held_file, run_simple = sys.argv[1], moto.server.run_simple

def is_held(name):
    try:
        with open(held_file, encoding="utf-8") as file:
            return re.fullmatch(file.read(), name) is not None
    except FileNotFoundError:
        return False

def path_of(environ):
    return environ["PATH_INFO"].encode("latin-1").decode().lstrip("/")

def in_halves(answer, name):
    body = b"".join(answer)
    yield body[: len(body) // 2]
    while is_held(name):
        time.sleep(0.05)
    yield body[len(body) // 2 :]

def run_holding(host, port, app, **options):
    def holding_app(environ, start_response):
        answer, name = app(environ, start_response), path_of(environ)
        return in_halves(answer, name) if environ["REQUEST_METHOD"] == "GET" and is_held(name) else answer
    run_simple(host, port, holding_app, **options)

moto.server.run_simple = run_holding

def end_with_the_starting_process():
    os.read(0, 1)
    os._exit(0)

threading.Thread(target=end_with_the_starting_process, daemon=True).start()
main(["-H", "127.0.0.1", "-p", "0"])
"""
# Suffix to the log's path: the file with the pattern of the objects that are held back.
_HELD = ".held"


@dataclass(frozen=True)
class S3Server:
    """A running server. `log` is the path of its request log."""

    url: str
    process: subprocess.Popen
    log: str

    def requests(self) -> list[tuple[str, str, int]]:
        """Return (method, path with query, status) of every request so far, in order."""
        return [(method, path, int(status)) for method, path, status in _REQUEST.findall(_read(self.log))]

    @contextlib.contextmanager
    def holding(self, pattern: str) -> Iterator[None]:
        """Hold back the second half of every object whose "bucket/key" matches the pattern until the block ends.

        This keeps work running for as long as a test needs: a run cannot end while it waits for an image.
        """
        new, path = f"{self.log}.new", self.log + _HELD
        with open(new, "w", encoding="utf-8") as file:
            file.write(pattern)
        os.replace(new, path)
        try:
            yield
        finally:
            os.unlink(path)

    def post(self, path: str, body: bytes = b"") -> None:
        """Send a POST to moto's own interface, such as "/moto-api/reset"."""
        # As text: moto ignores the body of a form, which is urllib's default.
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(self.url + path, body, headers, method="POST")
        urllib.request.urlopen(request, timeout=60).close()


def start(*, within: float = 60.0) -> S3Server:
    """Start a server and return it once it answers; raises RuntimeError if it does not `within` seconds."""
    log = tempfile.NamedTemporaryFile(suffix=".imgtx-s3.log", delete=False)  # noqa: SIM115 - closed below
    with log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, log.name + _HELD], stdin=subprocess.PIPE, stdout=log, stderr=log
        )
    deadline = time.monotonic() + within
    while process.poll() is None and time.monotonic() < deadline:
        # It listens before it prints its address, so that a connection made now is answered.
        if address := _ADDRESS.search(_read(log.name)):
            return S3Server(address[1], process, log.name)
        time.sleep(0.1)
    _end(process)
    raise RuntimeError(f"the S3 test server did not start; see {log.name}")


def stop(server: S3Server) -> None:
    """End the server's process, by its id, and wait for it."""
    _end(server.process)


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    assert process.stdin
    process.stdin.close()


def _read(log: str) -> str:
    with open(log, encoding="utf-8", errors="replace") as file:
        return _COLOUR.sub("", file.read())


@contextlib.contextmanager
def serving() -> Iterator[S3Server]:
    server = start()
    try:
        yield server
    finally:
        stop(server)
        os.unlink(server.log)
