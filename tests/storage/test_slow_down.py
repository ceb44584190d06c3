"""A server with a limited rate of requests: nothing fails, and retries are paced."""

import contextlib
import time
import urllib.error
import urllib.request

from bench.slow_down import measure
from bench.slow_s3 import BURST, slow_s3


def test_pacing_avoids_most_refusals_and_nothing_fails():
    """The client sends 200 requests, 32 at a time; the server accepts 40 a second."""
    refused = {}
    for name in ("retries alone", "paced"):
        found = measure(40, name, 200, processes=1, at_once=32)
        assert (found["served"], found["failed"]) == (200, 0)
        refused[name] = found["refused"]
    assert refused["retries alone"] > 100
    assert refused["paced"] < refused["retries alone"] / 2


def test_the_server_refuses_requests_above_its_rate():
    with slow_s3(20) as server:
        began = time.monotonic()
        for _ in range(40):
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(f"{server.url}/bucket/key", timeout=30).close()
        most = 20 * (BURST + time.monotonic() - began)
        served, refused = server.counts()
    assert served + refused == 40
    assert 20 * BURST <= served <= most + 1
