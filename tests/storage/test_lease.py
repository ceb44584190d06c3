"""One run at a time, on every back end. Tests advance the time, so that no `ttl` depends on the machine."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest

from imgtx.errors import LeaseHeldError, StorageError
from pipeline.ledger import lease as lease_module
from pipeline.ledger.lease import RELEASED, Lease, living_holder
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import LEASES


def files(store: Store) -> list[str]:
    return sorted(key for batch in store.list(LEASES) for key in batch.column("key").to_pylist())


def content(store: Store) -> dict:
    return json.loads(store.read(files(store)[-1]))


def rewrite(store: Store, **changes: object) -> None:
    store.write(files(store)[-1], json.dumps(content(store) | changes).encode())


def elsewhere(lease: Lease) -> Lease:
    """Make the lease look as if another host holds it, whose processes cannot be seen from here."""
    lease._holder = replace(lease._holder, host="elsewhere", machine="another boot")
    return lease


@pytest.fixture
def ended_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.fixture
def never_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if the lease sleeps: this machine knows its own processes and need not wait."""

    def sleep(seconds: float) -> None:
        pytest.fail(f"the holder was watched: the lease slept {seconds} s")

    # In place of the module's name `time`, so that other modules may sleep.
    monkeypatch.setattr(lease_module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))


class Clock:
    """Replaces the lease's module `time`: `sleep` moves the clock, and then lets happen what `while_asleep` does.

    The thread that renews waits in real seconds, a quarter of its ttl.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        # One for each sleep, in order.
        self.while_asleep: list[Callable[[], object]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.while_asleep:
            self.while_asleep.pop(0)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lease_module, "time", clock)
    return clock


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop holders from renewing on their own."""
    monkeypatch.setattr(Lease, "_beat_until_stopped", lambda self: None)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lease_is_acquired_and_released(store: Store):
    with Lease(store, "first") as lease:
        assert not lease.lost
        assert content(store)["run"] == "first"
    assert content(store)["state"] == RELEASED
    with Lease(store, "second"):
        assert files(store) == ["lease/000002.json"], "the old generation is removed"


def test_a_lease_is_released_after_a_failure(store: Store):
    with pytest.raises(KeyError), Lease(store, "first"):
        raise KeyError
    assert content(store)["state"] == RELEASED


def test_the_error_names_the_holder(store: Store, never_watched: None):
    with Lease(store, "first") as first:
        with pytest.raises(LeaseHeldError) as caught, Lease(store, "second"):
            pass
        holder = content(store)
        for named in (
            "first",
            holder["host"],
            str(holder["pid"]),
            holder["user"],
            holder["since"],
            "--force-unlock",
        ):
            assert named in str(caught.value)
        assert not first.lost
        assert files(store) == ["lease/000001.json"]


def test_of_16_racers_one_wins(store: Store):
    start, end = threading.Barrier(16, timeout=120), threading.Barrier(16, timeout=120)

    def race(number: int) -> str | None:
        start.wait()
        try:
            with Lease(store, f"run {number}"):
                end.wait()
                return f"run {number}"
        except LeaseHeldError:
            end.wait()
            return None

    with ThreadPoolExecutor(16) as pool:
        winners = [name for name in pool.map(race, range(16)) if name]
    assert len(winners) == 1
    assert content(store)["run"] == winners[0]


def test_of_16_racers_for_a_released_lease_one_wins(store: Store):
    with Lease(store, "before"):
        pass
    test_of_16_racers_one_wins(store)


def test_the_lease_of_a_dead_local_process_is_taken_over_at_once(
    store: Store, ended_pid: int, never_watched: None
):
    with Lease(store, "first"):
        rewrite(store, pid=ended_pid)
        with Lease(store, "second"):
            assert content(store)["run"] == "second"


def test_the_lease_of_a_killed_run_is_taken_over_at_once(tmp_path, never_watched: None):
    code = (
        "import sys, time; from pipeline.storage.store import open_store; from pipeline.ledger.lease import Lease\n"
        "with Lease(open_store(sys.argv[1]), 'killed'): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    store = open_store(str(tmp_path))
    with pytest.raises(LeaseHeldError, match=f"run killed .*process {child.pid}"), Lease(store, "next"):
        pass
    child.kill()
    # Ended, but not reaped: a zombie holds no lease.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with Lease(store, "next"):
        assert content(store)["run"] == "next"
    child.wait()
    child.stdout.close()


def test_a_reused_process_id_counts_as_dead(store: Store, never_watched: None):
    with Lease(store, "first"):
        rewrite(store, started="1")
        with Lease(store, "second"):
            assert content(store)["run"] == "second"


def test_the_lease_of_a_silent_remote_holder_is_taken_over_after_its_ttl(
    store: Store, clock: Clock, silent: None
):
    with elsewhere(Lease(store, "silent")) as lease:
        begin = clock.now
        with Lease(store, "second"):
            assert 60 < clock.now - begin < 70
            assert content(store)["run"] == "second"
            assert lease.lost, "the holder knows it too"
    assert content(store)["run"] == "second", "a lost lease is not released over its successor"


def test_the_lease_of_an_active_remote_holder_is_not_taken_over(store: Store, clock: Clock, silent: None):
    with elsewhere(Lease(store, "alive")) as alive:
        begin = clock.now
        clock.while_asleep = [lambda: None, lambda: None, lambda: rewrite(store, beat=1)]
        with pytest.raises(LeaseHeldError, match=r"run alive .*host elsewhere"), Lease(store, "second"):
            pass
        assert clock.now - begin < 60 / 4, "noticed at the first beat"
        assert not alive.lost


def test_a_release_while_waiting_lets_the_waiter_acquire_it(store: Store, clock: Clock, silent: None):
    first = elsewhere(Lease(store, "first"))
    first.__enter__()
    begin = clock.now
    clock.while_asleep = [lambda: None, lambda: first.__exit__(None, None, None)]
    with Lease(store, "second"):
        assert content(store)["run"] == "second"
        assert clock.now - begin < 60 / 4


def test_a_stolen_lease_is_lost(store: Store, clock: Clock):
    with Lease(store, "first", ttl=0.4) as first:
        with Lease(store, "thief", ttl=60, force_unlock=True) as thief:
            wait_for(lambda: first.lost)
            assert not thief.lost
        assert first.lost, "what was lost stays lost"
    assert content(store)["run"] == "thief"


def test_a_holder_that_cannot_renew_loses_the_lease(monkeypatch: pytest.MonkeyPatch, clock: Clock):
    store, tried = open_store("memory://cut/off"), threading.Event()
    with Lease(store, "cut off", ttl=0.4) as lease:

        def cut(*_: object) -> None:
            tried.set()
            raise StorageError("storage", "the network is cut", transient=True)

        for request in ("write", "create", "list"):
            monkeypatch.setattr(Store, request, cut)
        assert tried.wait(60)
        assert not lease.lost
        clock.now += 0.39
        assert not lease.lost
        clock.now += 0.02
        assert lease.lost
        assert "could not be renewed for 0.4 s (the network is cut)" in lease.why_lost


def test_a_holder_that_was_starved_takes_its_lease_again(store: Store, clock: Clock, silent: None):
    with Lease(store, "starved") as lease:
        clock.now += 61
        assert not lease.lost, "nobody took it"
        assert files(store) == ["lease/000002.json"]
        clock.now += 59
        assert not lease.lost
        assert files(store) == ["lease/000002.json"], "it was renewed by taking it"
        with pytest.raises(LeaseHeldError), Lease(store, "second"):
            pass
    assert content(store)["state"] == RELEASED


def test_a_starved_holder_names_who_took_its_lease(store: Store, clock: Clock, silent: None):
    with Lease(store, "starved") as lease, Lease(store, "thief", force_unlock=True):
        clock.now += 61
        assert lease.lost
        assert "another run took the lease over: run thief" in lease.why_lost


def test_of_a_starved_holder_and_a_run_that_found_it_dead_one_succeeds(
    store: Store, clock: Clock, silent: None
):
    """The other run creates its generation between our look and ours."""
    with Lease(store, "starved") as lease:
        clock.now += 61
        real = lease._is_ours

        def look() -> bool:
            seen = real()
            store.create(
                "lease/000002.json", json.dumps(content(store) | {"run": "other", "token": "t"}).encode()
            )
            return seen

        lease._is_ours = look
        assert lease.lost
        assert content(store)["run"] == "other"


def test_a_lease_is_renewed(store: Store, clock: Clock):
    with Lease(store, "long", ttl=0.4):
        wait_for(lambda: content(store)["beat"] >= 2)


def test_a_renewed_lease_outlasts_its_ttl(clock: Clock):
    store = open_store("memory://long/hold")
    with Lease(store, "long", ttl=0.4) as lease:
        for _ in range(5):
            clock.now += 0.2
            # The second renewal from now begins after the clock has advanced.
            enough = content(store)["beat"] + 2
            wait_for(lambda enough=enough: content(store)["beat"] >= enough)
            assert not lease.lost


def test_a_generation_created_late_gives_way(store: Store, monkeypatch: pytest.MonkeyPatch):
    """A process with an old listing creates a generation that was taken and removed since."""
    for run in ("one", "two", "three"):
        with Lease(store, run):
            pass
    assert files(store) == ["lease/000003.json"]
    listings = iter([[1]])
    real = lease_module._generations
    monkeypatch.setattr(lease_module, "_generations", lambda store: next(listings, None) or real(store))
    with Lease(store, "late"):
        assert files(store) == ["lease/000004.json"]


def test_an_unreadable_lease_is_taken_over_after_its_ttl(store: Store, clock: Clock):
    store.write("lease/000001.json", b"{ half a")
    begin = clock.now
    with Lease(store, "next"):
        assert content(store)["run"] == "next"
        assert clock.now - begin > 60


def test_a_lease_whose_file_was_removed_is_lost(store: Store, clock: Clock):
    """Users remove it to unlock a destination: the next run begins at the first generation again."""
    with Lease(store, "first", ttl=0.4) as first:
        store.delete("lease/000001.json")
        with Lease(store, "second", ttl=60) as second:
            wait_for(lambda: first.lost)
            assert not second.lost
            assert living_holder(store).run == "second"
    assert living_holder(store) is None


def test_a_lease_whose_folder_was_removed_says_so(store: Store):
    with Lease(store, "first", ttl=0.4) as first:
        assert not first.removed
        store.delete("lease/000001.json")
        wait_for(lambda: first.lost)
        assert first.removed
    with Lease(store, "first", ttl=0.4) as first, Lease(store, "thief", ttl=60, force_unlock=True):
        wait_for(lambda: first.lost)
        assert not first.removed
