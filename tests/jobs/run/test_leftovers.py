"""A run removes half-written files of killed workers before it starts, and only under the lease."""

from pathlib import Path

import pytest

from imgtx.errors import LeaseHeldError
from jobs.run.driver import Session, run
from pipeline.ledger.lease import Lease
from pipeline.spec import RunSpec
from pipeline.storage.objects import TEMPORARY
from pipeline.storage.store import open_store
from pipeline.tables.schemas import IMAGES, LEASES, LEDGER_PARTS, RUNS
from tests.support.archive import fill, save_tiny_model

PLACES = [f"{IMAGES}a/b/", f"{RUNS}20261123T000000-abcd/", LEDGER_PARTS, LEASES]


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    fill(open_store(str(tmp_path / "in")), 1)
    model = save_tiny_model(tmp_path / "tiny.safetensors")
    return RunSpec(source=str(tmp_path / "in"), destination=str(tmp_path / "out"), model=model)


@pytest.fixture
def leftovers(spec: RunSpec) -> list[Path]:
    """Make a half-written file in every folder that a run writes to."""
    made = [Path(spec.destination) / place / f"{TEMPORARY}half" for place in PLACES]
    for path in made:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
    return made


def test_leftovers_are_removed_before_the_work_begins(spec, leftovers, monkeypatch):
    whole = Path(spec.destination) / IMAGES / "a/b/whole.png"
    whole.write_bytes(b"whole")
    found: list[list[Path]] = []

    def look(session: Session) -> None:
        found.append([path for path in leftovers if path.exists()])

    monkeypatch.setattr(Session, "process", look)
    run(spec, lambda tally: None)
    assert found == [[]]
    assert whole.read_bytes() == b"whole"


def test_a_run_without_the_lease_removes_nothing(spec, leftovers):
    """The other run may be writing these files."""
    with Lease(open_store(spec.destination), "another"), pytest.raises(LeaseHeldError):
        run(spec, lambda tally: None)
    assert all(path.exists() for path in leftovers)
