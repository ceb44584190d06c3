"""Serve S3 and answer 503 SlowDown above RATE requests a second, as S3 does for each prefix of a bucket.

    python -m bench.slow_s3 RATE        prints its URL; GET /counts: how many it served and how many it refused

Every object exists and has ten bytes. The server ends with the process that started it, which holds its standard input.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

# Seconds, of every answer.
LATENCY = 0.005
# Requests of so many seconds may come at once.
BURST = 0.25
REFUSAL = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"


class Limited:
    def __init__(self, rate: float):
        self.rate, self.room, self.since = rate, rate * BURST, time.monotonic()
        self.served = self.refused = 0

    def admits(self) -> bool:
        now = time.monotonic()
        self.room = min(self.rate * BURST, self.room + (now - self.since) * self.rate)
        self.since = now
        admitted = self.room >= 1
        self.room -= admitted
        self.served += admitted
        self.refused += not admitted
        return admitted

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
                await reader.readexactly(length)
                await asyncio.sleep(LATENCY)
                if " /counts " in head.splitlines()[0]:
                    status, body = b"200 OK", json.dumps([self.served, self.refused]).encode()
                else:
                    status, body = (
                        (b"200 OK", b"0123456789") if self.admits() else (b"503 Slow Down", REFUSAL)
                    )
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        writer.close()


async def serve(rate: float) -> None:
    server = await asyncio.start_server(Limited(rate).answer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


@dataclass(frozen=True)
class SlowS3:
    url: str

    def counts(self) -> tuple[int, int]:
        """Return (served, refused) so far."""
        with urllib.request.urlopen(f"{self.url}/counts", timeout=30) as answer:
            served, refused = json.load(answer)
        return served, refused


@contextlib.contextmanager
def slow_s3(rate: float) -> Iterator[SlowS3]:
    """Start a server that allows `rate` requests a second; yield it."""
    command = [sys.executable, "-m", "bench.slow_s3", str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield SlowS3(process.stdout.readline().strip())
        finally:
            process.kill()


def _end_with_the_parent() -> None:
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    asyncio.run(serve(float(sys.argv[1])))
