"""A run's session without Ray: files and rows that it writes and deletes as outcomes come in."""

import signal
import time
from types import SimpleNamespace

import pyarrow as pa
import pytest

from imgtx.errors import RunInterruptedError, StorageError
from jobs.run import driver
from jobs.run.driver import Session
from jobs.run.prepare import plan_run, prepare
from pipeline.spec import RunSpec
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import IMAGES, OUTCOME, WRITTEN
from tests.support.archive import fill, save_tiny_model
from tests.support.zoo import photo, saved


@pytest.fixture
def session(tmp_path) -> Session:
    """Return a session that writes PNG, over one image whose JPEG an earlier run has written."""
    model = save_tiny_model(tmp_path / "tiny.safetensors")
    spec = RunSpec(source=str(tmp_path / "in"), destination=str(tmp_path / "out"), model=model)
    (tmp_path / "in").mkdir()
    earlier = prepare(spec)
    fill(earlier.opened.source.store, 1)
    (work,) = plan_run(earlier).work.slice().to_pylist()
    earlier.destination.write(IMAGES + work["output"], saved(photo(8, 8), "JPEG"))
    row = {name: work.get(name) for name in OUTCOME.names} | {"status": WRITTEN}
    earlier.ledger.append(to_table([row], OUTCOME), recipe="another", run="earlier")
    run = prepare(RunSpec(**spec.to_dict() | {"format": "png"}))
    session = Session(
        run, plan_run(run), SimpleNamespace(lost=False, removed=False, why_lost=""), watch=lambda tally: None
    )
    (wave,) = session.waves()
    session.begin_wave(wave)
    return session


def outcome(session: Session) -> pa.Table:
    """Write the new output of the session's only image; return its row as the last stage does."""
    (work,) = session.plan.work.slice().to_pylist()
    session.run.destination.write(IMAGES + work["output"], saved(photo(8, 8), "PNG"))
    row = {name: work.get(name) for name in OUTCOME.names} | {"status": WRITTEN}
    return to_table([row], OUTCOME)


def test_a_file_under_an_old_name_is_deleted_with_the_new_row(session):
    (old,) = session.replacing["previous_output"].to_pylist()
    session.buffer.append(outcome(session))
    session._flush()
    (row,) = session.run.ledger.current().to_pylist()
    assert row["output"] != old
    assert session.run.destination.stat(IMAGES + old) is None


def test_a_run_that_lost_its_lease_deletes_and_records_nothing(session):
    (old,) = session.replacing["previous_output"].to_pylist()
    session.buffer.append(outcome(session))
    session.lease.lost, session.lease.why_lost = True, "another run took the lease over: run x"
    with pytest.raises(RunInterruptedError, match="another run took the lease over: run x"):
        session._flush()
    session.lease.removed = True
    with pytest.raises(StorageError, match="was removed, or its lease/, while the run wrote to it"):
        session._flush()
    assert session.run.destination.stat(IMAGES + old) is not None
    (row,) = session.run.ledger.current().to_pylist()
    assert row["output"] == old


@pytest.mark.parametrize("removed", [False, True])
def test_a_run_that_waits_for_an_image_notices_that_its_lease_is_lost(session, monkeypatch, removed: bool):
    def wait_for_an_image():
        session.lease.lost, session.lease.why_lost = True, "another run took the lease over: run x"
        session.lease.removed = removed
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.01)

    monkeypatch.setattr(driver, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(session, "_process", wait_for_an_image)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(StorageError if removed else RunInterruptedError, match=r"was removed|run x"):
            session.process()
    finally:
        signal.signal(signal.SIGINT, before)
