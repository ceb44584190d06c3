"""Refused images become rows; expired or revoked credentials end the run."""

import pyarrow as pa
import pytest

from imgtx.errors import RunInterruptedError, StorageError
from jobs.run import access
from jobs.run.access import AccessMonitor
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import CREDENTIALS, FAILED, FORBIDDEN, NO_SPACE
from tests.support.ledger_rows import outcome, outcomes


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Return the keys that the source is asked for; it refuses those that begin with `refused`."""
    keys: list[str] = []

    def stat(store: Store, key: str):
        keys.append(key)
        if key.startswith("refused"):
            raise StorageError(FORBIDDEN, f"cannot stat {key}: 403 AccessDenied")

    monkeypatch.setattr(access, "REFUSALS", 10)
    monkeypatch.setattr(Store, "stat", stat)
    monkeypatch.setattr(Store, "probe", lambda store: keys.append("the listing"))
    return keys


def refused(count: int) -> pa.Table:
    return outcomes(*(outcome(f"f{i}", status=FAILED, reason=FORBIDDEN) for i in range(count)))


def good(key: str) -> pa.Table:
    return outcomes(outcome(key))


def test_rows_of_refused_credentials_are_dropped_and_end_the_run():
    rows = outcomes(
        outcome("a"),
        outcome("b", status=FAILED, reason=CREDENTIALS, message="400 ExpiredToken"),
        outcome("c", status=FAILED, reason="corrupt"),
    )
    kept, ended = AccessMonitor(open_store("memory://x")).check(rows)
    assert kept["key"].to_pylist() == ["a", "c"]
    assert isinstance(ended, RunInterruptedError)
    assert str(ended) == "400 ExpiredToken"


def test_a_full_destination_ends_the_run_and_its_rows_are_dropped():
    full = outcome("b", status=FAILED, reason=NO_SPACE, message="No space left on device")
    kept, ended = AccessMonitor(open_store("memory://x")).check(outcomes(outcome("a"), full))
    assert kept["key"].to_pylist() == ["a"]
    assert isinstance(ended, StorageError)
    assert ended.reason == NO_SPACE


def test_a_forbidden_folder_becomes_rows_while_other_keys_can_be_read(asked):
    check = AccessMonitor(open_store("memory://x")).check
    assert check(good("readable"))[1] is None
    for _ in range(10):
        rows, ended = check(refused(5))
        assert (rows.num_rows, ended) == (5, None)
    # After every ten refusals.
    assert asked == ["readable"] * 5


def test_a_key_that_was_read_and_is_now_refused_ends_the_run(asked):
    check = AccessMonitor(open_store("memory://x")).check
    check(good("refused-now"))
    assert check(refused(9))[1] is None
    rows, ended = check(refused(1))
    assert rows.num_rows == 1
    assert str(ended) == "10 images in a row were refused, and cannot stat refused-now: 403 AccessDenied"


def test_any_other_outcome_restarts_the_count(asked):
    check = AccessMonitor(open_store("memory://x")).check
    for _ in range(5):
        check(refused(9))
        check(outcomes(outcome("x", status=FAILED, reason="corrupt")))
    assert asked == []


def test_before_anything_was_read_the_listing_is_tried(asked):
    assert AccessMonitor(open_store("memory://x")).check(refused(10))[1] is None
    assert asked == ["the listing"]
