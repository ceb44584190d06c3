"""When refusals are rows, and when they are the end of a run."""

import pyarrow as pa
import pytest

from imgtx.errors import StorageError
from jobs.run import access
from jobs.run.access import AccessMonitor
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import CREDENTIALS, FAILED, FORBIDDEN
from tests.support.ledger_rows import outcome, outcomes


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """What the source is asked for; it refuses the keys named `refused`."""
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


def test_rows_of_refused_credentials_are_nobodys_and_end_the_run():
    rows = outcomes(
        outcome("a"),
        outcome("b", status=FAILED, reason=CREDENTIALS, message="400 ExpiredToken"),
        outcome("c", status=FAILED, reason="corrupt"),
    )
    kept, ended = AccessMonitor(open_store("memory://x")).check(rows)
    assert kept["key"].to_pylist() == ["a", "c"]
    assert ended == "400 ExpiredToken"


def test_a_folder_that_is_somebody_elses_is_rows(asked):
    check = AccessMonitor(open_store("memory://x")).check
    assert check(good("readable"))[1] == ""
    for _ in range(10):
        rows, ended = check(refused(5))
        assert (rows.num_rows, ended) == (5, "")
    assert asked == ["readable"] * 5  # after every ten


def test_what_could_be_read_and_can_no_more_ends_the_run(asked):
    check = AccessMonitor(open_store("memory://x")).check
    check(good("refused-now"))
    assert check(refused(9))[1] == ""
    rows, ended = check(refused(1))
    assert rows.num_rows == 1
    assert ended == "10 images in a row were refused, and cannot stat refused-now: 403 AccessDenied"


def test_any_other_outcome_in_between_begins_the_row_anew(asked):
    check = AccessMonitor(open_store("memory://x")).check
    for _ in range(5):
        check(refused(9))
        check(outcomes(outcome("x", status=FAILED, reason="corrupt")))
    assert asked == []


def test_where_nothing_could_be_read_yet_the_listing_is_asked_for(asked):
    assert AccessMonitor(open_store("memory://x")).check(refused(10))[1] == ""
    assert asked == ["the listing"]
