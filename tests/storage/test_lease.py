"""One run at a time, on every back end. A ttl is short where it must pass, and long where it must not."""

import json
import os
import subprocess
import sys
import threading
import time
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
    """As if it were taken by another host, whose processes cannot be seen from here."""
    lease._holder = replace(lease._holder, host="elsewhere", machine="another boot")
    return lease


@pytest.fixture
def ended_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.fixture
def never_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine knows of its own processes settles the matter: a lease that sleeps, to watch, fails."""

    def sleep(seconds: float) -> None:
        pytest.fail(f"the holder was watched: the lease slept {seconds} s")

    # In place of the module's name `time`, so that everybody else may sleep.
    monkeypatch.setattr(lease_module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))


def test_taken_and_released(store: Store):
    with Lease(store, "first") as lease:
        assert not lease.lost
        assert content(store)["run"] == "first"
    assert content(store)["state"] == RELEASED
    with Lease(store, "second"):
        assert files(store) == ["lease/000002.json"], "the old generation is removed"


def test_released_after_a_failure(store: Store):
    with pytest.raises(KeyError), Lease(store, "first"):
        raise KeyError
    assert content(store)["state"] == RELEASED


def test_the_second_is_told_who_holds_it(store: Store, never_watched: None):
    with Lease(store, "first") as first:
        with pytest.raises(LeaseHeldError) as caught, Lease(store, "second"):
            pass
        holder = content(store)
        for told in (
            "first",
            holder["host"],
            str(holder["pid"]),
            holder["user"],
            holder["since"],
            "--force-unlock",
        ):
            assert told in str(caught.value)
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


def test_a_dead_process_of_this_machine_is_succeeded_at_once(
    store: Store, ended_pid: int, never_watched: None
):
    with Lease(store, "first"):
        rewrite(store, pid=ended_pid)
        with Lease(store, "second"):
            assert content(store)["run"] == "second"


def test_a_killed_run_is_succeeded_at_once(tmp_path, never_watched: None):
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
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but not reaped: a zombie holds nothing
    with Lease(store, "next"):
        assert content(store)["run"] == "next"
    child.wait()
    child.stdout.close()


def test_a_process_id_that_was_used_again_is_dead(store: Store, never_watched: None):
    with Lease(store, "first"):
        rewrite(store, started="1")
        with Lease(store, "second"):
            assert content(store)["run"] == "second"


def test_a_silent_holder_elsewhere_is_succeeded_after_its_ttl(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Lease, "_beat_until_stopped", lambda self: None)
    with elsewhere(Lease(store, "silent", ttl=1)) as silent:
        begin = time.monotonic()
        with Lease(store, "second", ttl=1):
            assert time.monotonic() - begin > 1
            assert content(store)["run"] == "second"
            assert silent.lost, "the holder knows it too"
    assert content(store)["run"] == "second", "a lost lease is not released over its successor"


def test_a_beating_holder_elsewhere_is_left_alone(store: Store):
    # A beat every 3.5 s, looked for every 3.75 s; a machine that stops for ten seconds changes nothing.
    with elsewhere(Lease(store, "alive", ttl=14)) as alive:
        with (
            pytest.raises(LeaseHeldError, match=r"run alive .*host elsewhere"),
            Lease(store, "second", ttl=60),
        ):
            pass
        assert not alive.lost


def test_a_release_while_watched_lets_the_watcher_in(store: Store):
    first = elsewhere(Lease(store, "first", ttl=60))
    first.__enter__()
    threading.Timer(0.3, first.__exit__, (None, None, None)).start()
    watcher = Lease(store, "second", ttl=60)
    watcher._ttl = 8.0
    with watcher:
        assert content(store)["run"] == "second"


def test_a_stolen_lease_is_lost(store: Store):
    with Lease(store, "first", ttl=2) as first:
        with Lease(store, "thief", ttl=60, force_unlock=True) as thief:
            deadline = time.monotonic() + 60
            while not first.lost and time.monotonic() < deadline:
                time.sleep(0.05)
            assert first.lost
            assert not thief.lost
        assert first.lost, "what was lost stays lost"
    assert content(store)["run"] == "thief"


def test_a_holder_that_cannot_renew_has_lost(monkeypatch: pytest.MonkeyPatch):
    store = open_store("memory://cut/off")
    with Lease(store, "cut off", ttl=3) as lease:

        def cut(*_: object) -> None:
            raise StorageError("storage", "the network is cut", transient=True)

        monkeypatch.setattr(Store, "write", cut)
        assert not lease.lost
        time.sleep(3.1)
        assert lease.lost


def test_a_hold_is_renewed(store: Store):
    with Lease(store, "long", ttl=8):
        deadline = time.monotonic() + 60
        while content(store)["beat"] < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert content(store)["beat"] >= 2


def test_a_hold_outlasts_its_ttl():
    with Lease(open_store("memory://long/hold"), "long", ttl=3) as lease:  # four beats, on a busy machine too
        time.sleep(4.5)
        assert not lease.lost


def test_a_generation_created_late_stands_back(store: Store, monkeypatch: pytest.MonkeyPatch):
    """A racer that listed long ago creates a generation that was taken and removed since."""
    for run in ("one", "two", "three"):
        with Lease(store, run):
            pass
    assert files(store) == ["lease/000003.json"]
    listings = iter([[1]])
    real = lease_module._generations
    monkeypatch.setattr(lease_module, "_generations", lambda store: next(listings, None) or real(store))
    with Lease(store, "late"):
        assert files(store) == ["lease/000004.json"]


def test_an_unreadable_lease_is_watched_then_succeeded(store: Store):
    store.write("lease/000001.json", b"{ half a")
    with Lease(store, "next", ttl=0.5):
        assert content(store)["run"] == "next"


def test_a_lease_whose_file_was_removed_is_lost(store: Store):
    """As a person does to unlock a destination: the next run begins at the first generation again."""
    with Lease(store, "first", ttl=2) as first:
        store.delete("lease/000001.json")
        with Lease(store, "second", ttl=60) as second:
            deadline = time.monotonic() + 60
            while not first.lost and time.monotonic() < deadline:
                time.sleep(0.05)
            assert first.lost
            assert not second.lost
            assert living_holder(store).run == "second"
    assert living_holder(store) is None
