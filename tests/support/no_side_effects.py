"""A fast test cannot start Ray, open a network socket or sleep; `tests/test_no_side_effects.py` checks this fixture.

Tests that need sockets belong in tests/storage, tests that need Ray in tests/end_to_end.
"""

import socket
import time
from collections.abc import Iterator

import pytest
import ray

# Seconds.
LONGEST_SLEEP = 0.2

_open_socket, _sleep = socket.socket, time.sleep


def _refuse(what: str):
    # A BaseException, so that an `except Exception` in the code under test cannot swallow it.
    pytest.fail(f"a fast test {what}: move it to tests/storage or tests/end_to_end, or give the code a fake")


def _refuse_ray(*args: object, **options: object) -> None:
    _refuse("called ray.init")


def _refuse_lookup(host: object, *args: object, **options: object) -> None:
    _refuse(f"looked up the host {host!r}")


class _LocalSocket(_open_socket):
    """A socket that only opens for AF_UNIX: asyncio wakes its loops through a pair of those."""

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None):
        if fileno is None and family != socket.AF_UNIX:
            _refuse("opened a network socket")
        super().__init__(family, type, proto, fileno)


def _short_sleep(seconds: float) -> None:
    if seconds > LONGEST_SLEEP:
        _refuse(f"slept {seconds} s; {LONGEST_SLEEP} s is the most")
    _sleep(seconds)


# Not `monkeypatch`: its scope is one function, and hypothesis runs many examples in that.
@pytest.fixture(autouse=True, scope="module")
def no_side_effects() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", _refuse_ray)
        patch.setattr(socket, "socket", _LocalSocket)
        patch.setattr(socket, "getaddrinfo", _refuse_lookup)
        patch.setattr(time, "sleep", _short_sleep)
        yield
