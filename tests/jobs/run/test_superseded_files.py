"""A file replaced under another name is deleted before the row that no longer names it is written."""

import pytest

from jobs.run.prepare import plan_run
from pipeline.ledger.ledger import Ledger
from pipeline.tables.schemas import IMAGES
from tests.jobs.run.test_session import outcome, session

__all__ = ["session"]  # a fixture


class Killed(BaseException):
    """Like SIGKILL: nothing in the code under test catches it."""


def test_a_kill_between_the_two_steps_leaves_no_orphan(session, monkeypatch):
    (old,) = session.replacing["previous_output"].to_pylist()
    (wave,) = session.waves()
    session._mark_pending(wave)
    session.buffer.append(outcome(session))
    recorded: list[bool] = []

    def killed(ledger: Ledger, *_: object, **__: object) -> None:
        recorded.append(session.run.destination.stat(IMAGES + old) is None)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", killed)
        with pytest.raises(Killed):
            session._flush()
    assert recorded == [True], "the file still existed when its row was written"
    assert plan_run(session.run).work.num_rows == 1, "the key runs again"


def test_a_kill_before_the_file_is_deleted_makes_the_key_run_again(session, monkeypatch):
    (old,) = session.replacing["previous_output"].to_pylist()
    (wave,) = session.waves()
    session._mark_pending(wave)
    session.buffer.append(outcome(session))

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(session.run.destination), "delete", killed)
        with pytest.raises(Killed):
            session._flush()
    again = plan_run(session.run)
    (work,) = again.work.slice().to_pylist()
    assert work["previous_output"] == old, "the next run still knows what it has to delete"
