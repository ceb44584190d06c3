"""Operations that `tests/support/no_side_effects.py` forbids fail, and those that it allows work."""

import asyncio
import contextlib
import socket
import time
import urllib.request

import pytest
import ray

from tests.support.no_side_effects import no_side_effects

__all__ = ["no_side_effects"]

Refused = pytest.fail.Exception


def test_ray_cannot_be_started():
    with pytest.raises(Refused, match=r"ray\.init"):
        ray.init(num_cpus=1)


def test_ray_does_not_start_by_itself_either():
    with pytest.raises(Refused, match=r"ray\.init"):
        ray.put(1)
    assert not ray.is_initialized()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_network_sockets_do_not_open(family):
    with pytest.raises(Refused, match="network socket"):
        socket.socket(family, socket.SOCK_STREAM)


def test_the_default_family_counts_as_network():
    with pytest.raises(Refused, match="network socket"):
        socket.socket()


def test_network_libraries_are_refused_too():
    with pytest.raises(Refused, match="host"):
        urllib.request.urlopen("http://localhost:1/", timeout=1)


def test_code_that_swallows_exceptions_cannot_swallow_the_refusal():
    with pytest.raises(Refused), contextlib.suppress(Exception):
        socket.create_connection(("127.0.0.1", 1), timeout=1)


def test_long_sleeps_are_refused_and_short_ones_are_not():
    with pytest.raises(Refused, match="slept"):
        time.sleep(0.21)
    time.sleep(0)


def test_asyncio_and_local_pairs_work():
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert asyncio.run(answer()) == 42
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x")
        assert right.recv(1) == b"x"
