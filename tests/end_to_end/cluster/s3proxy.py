"""A proxy between the hosts and the S3 server: counts the requests of each host, and fails on request.

with proxying(socket, "http://127.0.0.1:4711") as proxy:
    proxy.answers = slow_down               # from now on; proxy.answers = None: the server's own
    with proxy.holding("in/2/"):             # a GET of one of these objects is answered after the block
        ...
    proxy.asked("GET", "in/")               # how often each object of a bucket or prefix was read
"""

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import aiohttp
from aiohttp import web
from yarl import URL

# HTTP status, S3's code, its message.
Answer = tuple[int, str, str]
Fault = Callable[["Request"], Answer | None]


@dataclass(frozen=True)
class Request:
    """A request: `host` is the client's address, `key` is bucket and object, "" for anything else."""

    method: str
    key: str
    host: str
    status: int = 0


@dataclass
class Proxy:
    """A running proxy. `answers` decides per request which error is sent in place of the server's answer."""

    server: str
    answers: Fault | None = None
    # Seconds before each answer, as of a distant bucket.
    delay: float = 0.0
    # Objects under this prefix are held back.
    held: str | None = None
    # Requests in the order of their answers.
    requests: list[Request] = field(default_factory=list)

    def asked(self, method: str, prefix: str, *, by: str | None = None, since: int = 0) -> Counter[str]:
        """Count successful requests per key, optionally of one host, from request number `since` on."""
        return Counter(
            request.key
            for request in self.requests[since:]
            if request.method == method
            and request.key.startswith(prefix)
            and request.status < 300
            and by in (None, request.host)
        )

    def refused(self, since: int = 0) -> int:
        return sum(request.status >= 400 for request in self.requests[since:])

    @contextlib.contextmanager
    def holding(self, prefix: str) -> Iterator[None]:
        """Hold back the objects under the prefix until the block ends: a run cannot end while it waits for an image."""
        self.held = prefix
        try:
            yield
        finally:
            self.held = None

    async def answer(self, session: aiohttp.ClientSession, request: web.Request) -> web.Response:
        body = await request.read()
        key = "" if request.query_string else request.path.lstrip("/")
        asked = Request(request.method, key, request.remote or "")
        await asyncio.sleep(self.delay)
        while self.held and asked.method == "GET" and key.startswith(self.held):
            await asyncio.sleep(0.05)
        refusal = self.answers(asked) if self.answers else None
        answer = _error(*refusal) if refusal else await self._pass_on(session, request, body)
        self.requests.append(Request(asked.method, key, asked.host, answer.status))
        return answer

    async def _pass_on(
        self, session: aiohttp.ClientSession, request: web.Request, body: bytes
    ) -> web.Response:
        url, headers = URL(self.server + request.raw_path, encoded=True), _end_to_end(request.headers)
        async with session.request(request.method, url, headers=headers, data=body) as found:
            answer = web.Response(
                status=found.status, headers=_end_to_end(found.headers), body=await found.read()
            )
            if request.method == "HEAD" and "Content-Length" in found.headers:
                answer.headers["Content-Length"] = found.headers["Content-Length"]
            return answer


HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server", "keep-alive", "expect"}


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


def _error(status: int, code: str, message: str) -> web.Response:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return web.Response(status=status, text=body, content_type="application/xml")


@contextlib.contextmanager
def proxying(listener: socket.socket, server: str) -> Iterator[Proxy]:
    """Serve at `listener`, in a thread, until the block ends."""
    proxy, loop = Proxy(server), asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 30)
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            app.router.add_route("*", "/{path:.*}", partial(proxy.answer, session))
            runner = web.AppRunner(app, access_log=None, auto_decompress=False)
            await runner.setup()
            await web.SockSite(runner, listener).start()
            ready.set()
            await stop.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert ready.wait(30)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
