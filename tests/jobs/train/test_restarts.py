"""A training may restart as long as it makes progress, and not forever from one checkpoint."""

import pytest

from imgtx.errors import RunInterruptedError
from jobs.train.network import interface_of
from jobs.train.restarts import RESTARTS, Restarts
from pipeline.storage.store import open_store


@pytest.fixture
def restarts(tmp_path) -> Restarts:
    return Restarts(open_store(str(tmp_path / "training")))


def test_workers_that_progress_may_restart_without_limit(restarts):
    for number in range(50):
        restarts.count_start(f"checkpoint-{number // RESTARTS}")


def test_workers_that_do_not_progress_stop_the_training_with_their_error(restarts):
    for _ in range(1 + RESTARTS):
        restarts.count_start("")
    restarts.failure = "OSError: the disk\nis full"
    with pytest.raises(
        RunInterruptedError, match=r"3 restarts reached no new checkpoint \(OSError: the disk is"
    ):
        restarts.count_start("")


def test_a_killed_worker_leaves_no_error(restarts):
    assert "it was killed, or its node was lost" in str(
        restarts.interruption(RuntimeError("Ray's words\n\nthe last\n"))
    )
    assert "stopped: the last (" in str(restarts.interruption(RuntimeError("Ray's words\n\nthe last\n")))


def test_a_failed_attempt_counts_as_a_start(restarts):
    restarts.count_start("checkpoint-1")
    for _ in range(RESTARTS):
        restarts.count_failure(RuntimeError("no peers"))
    with pytest.raises(RunInterruptedError, match="training stopped: no peers"):
        restarts.count_failure(RuntimeError("no peers"))


def test_the_interface_with_an_address_is_found():
    assert interface_of("127.0.0.1").startswith("lo")
    # An address reserved for documentation.
    assert interface_of("203.0.113.7") == ""
