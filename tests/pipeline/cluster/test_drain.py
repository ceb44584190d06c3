"""A model leaves a machine that drains once its batch is out of its hands, and no other."""

import threading

import pytest

from pipeline.cluster import drain


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the actor leaves; it looks a hundred times a second and leaves after a tenth of one."""
    event = threading.Event()
    monkeypatch.setattr(drain, "restart_elsewhere", event.set)
    monkeypatch.setattr(drain, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(drain, "IDLE_SECONDS", 0.1)
    return event


def test_a_model_stays_on_a_machine_that_stays(left: threading.Event, monkeypatch: pytest.MonkeyPatch):
    draining = threading.Event()
    monkeypatch.setattr(drain, "node_drains", draining.is_set)
    drain.DrainWatcher()
    assert not left.wait(0.5)
    draining.set()
    assert left.wait(30)


def test_the_batch_in_hand_comes_first(left: threading.Event, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drain, "node_drains", lambda: True)
    watcher = drain.DrainWatcher.__new__(drain.DrainWatcher)  # a batch comes before the first look
    watcher.idle_since = None
    with watcher.working():
        threading.Thread(target=watcher._watch, daemon=True).start()
        assert not left.wait(0.5)
        assert watcher.idle == 0
    assert left.wait(30)
    assert watcher.idle >= 0.1


def test_only_an_actor_is_watched():
    assert drain.drain_watcher() is None
