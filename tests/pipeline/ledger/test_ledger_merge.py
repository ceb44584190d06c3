"""Small parts of a large ledger are merged; the whole ledger is compacted when enough of it is new."""

import uuid

import pyarrow as pa
import pytest

from pipeline.ledger import ledger as ledger_module
from pipeline.ledger import parts as ledger_parts
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.parts import list_parts, read_parts
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import FAILED
from tests.pipeline.ledger.test_ledger import names, sizes
from tests.support.dying_store import DyingStore, Killed
from tests.support.ledger_rows import outcome, outcomes


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}/")


def make_large_ledger(monkeypatch, store: Store, keys: int = 40) -> None:
    """Make a ledger that counts as large, in buckets; parts appended to it later count as small."""
    rows = [outcome(f"k{i}", out_sha256=uuid.uuid4().hex) for i in range(keys)]
    Ledger(store).append(outcomes(*rows), recipe="r", run="1")
    monkeypatch.setattr(ledger_module, "BUCKET_BYTES", 3_000)
    Ledger(store).compact()
    monkeypatch.setattr(ledger_module, "LOOSE_BYTES", 1_000)
    monkeypatch.setattr(ledger_module, "LOOSE_SHARE", 1e6)
    monkeypatch.setattr(ledger_module, "LOOSE_PARTS", 3)


def test_small_parts_of_a_large_ledger_become_one_and_the_rest_stays(store, monkeypatch):
    make_large_ledger(monkeypatch, store)
    compacted, ledger = set(names(store)), Ledger(store)
    assert len(compacted) > 1
    for size in range(9):
        rows = [outcome("k1", size=size, status=FAILED), outcome(f"new{size}")]
        ledger.append(outcomes(*rows), recipe="r", run="2")
        ledger.compact_if_due()
        assert len(names(store)) - len(compacted) <= 3
    assert compacted < set(names(store))
    assert sizes(ledger) == {f"k{i}": 10 for i in range(40)} | {f"new{i}": 10 for i in range(9)} | {"k1": 8}
    for buckets in (1, 4):
        (state,) = [s for t in ledger.state_by_bucket(buckets) for s in t.to_pylist() if s["key"] == "k1"]
        assert (state["status"], state["written_output"]) == (FAILED, "k1")


def test_parts_that_are_not_small_are_not_merged_again(store, monkeypatch):
    make_large_ledger(monkeypatch, store)
    monkeypatch.setattr(ledger_module, "SMALL_BYTES", 1)
    before = names(store)
    for i in range(5):
        Ledger(store).append(outcomes(outcome(f"new{i}")), recipe="r", run="2")
    assert not Ledger(store).compact_if_due()
    assert len(names(store)) == len(before) + 5


def test_a_merge_during_a_run_does_not_compact(store, monkeypatch):
    monkeypatch.setattr(ledger_module, "LOOSE_PARTS", 3)
    monkeypatch.setattr(ledger_module, "LOOSE_BYTES", 1)
    ledger = Ledger(store)
    for i in range(3):
        ledger.append(outcomes(outcome(f"k{i}")), recipe="r", run="1")
        assert not ledger.merge_if_due()
    ledger.append(outcomes(outcome("k3")), recipe="r", run="1")
    assert ledger.merge_if_due()
    (part,) = list_parts(store)
    assert not part.compacted
    assert len(sizes(ledger)) == 4


def test_a_merge_holds_at_most_held_bytes_at_once(store, monkeypatch):
    monkeypatch.setattr(ledger_module, "LOOSE_PARTS", 3)
    for i in range(8):
        Ledger(store).append(outcomes(outcome(f"k{i}")), recipe="r", run="1")
    size = max(part.size for part in list_parts(store))
    monkeypatch.setattr(ledger_parts, "HELD_BYTES", 3 * size)
    assert Ledger(store).merge_if_due()
    assert len(list_parts(store)) == 3
    assert len(sizes(Ledger(store))) == 8


def test_the_whole_ledger_is_compacted_when_enough_of_it_is_new(store, monkeypatch):
    make_large_ledger(monkeypatch, store)
    monkeypatch.setattr(ledger_module, "LOOSE_SHARE", 0.25)
    ledger, before = Ledger(store), set(names(store))
    for i in range(3):
        ledger.append(outcomes(outcome(f"new{i}")), recipe="r", run="2")
    assert ledger.compact_if_due()
    assert not before & set(names(store))
    assert len(sizes(ledger)) == 43


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_moment_of_a_merge_changes_no_answer(monkeypatch, after):
    origin = open_store(f"memory://{uuid.uuid4().hex}/")
    make_large_ledger(monkeypatch, origin, keys=8)
    for size in range(5):
        Ledger(origin).append(outcomes(outcome("k1", size=size), outcome(f"n{size}")), recipe="r", run="2")
    expected = sizes(Ledger(origin))
    for moment in range(1, 20):
        store = open_store(f"memory://{uuid.uuid4().hex}/")
        for name in names(origin):
            store.write(name, origin.read(name))
        try:
            Ledger(DyingStore(store, moment, after=after)).compact_if_due()
            break
        except Killed:
            assert sizes(Ledger(store)) == expected
            Ledger(store).compact_if_due()
            assert sizes(Ledger(store)) == expected
    # A write and five deletions come before.
    assert moment == 7
    assert sizes(Ledger(store)) == expected


def test_parts_are_read_ahead_by_bytes(store, monkeypatch):
    for part in range(12):
        Ledger(store).append(outcomes(*(outcome(f"{part}-{i}") for i in range(20))), recipe="r", run="1")
    parts = list_parts(store)
    monkeypatch.setattr(ledger_parts, "HELD_BYTES", 3 * parts[0].size)
    ahead: list[str] = []

    class Watched(DyingStore):
        def __init__(self):
            super().__init__(store, 0, after=False)
            self.read = lambda name: ahead.append(name) or store.read(name)

    seen = []
    for number, table in enumerate(read_parts(Watched(), parts, ["key"]), 1):
        assert len(ahead) <= number + 3
        seen.append(table)
    assert pa.concat_tables(seen)["key"].to_pylist() == [
        f"{part}-{i}" for part in range(12) for i in range(20)
    ]
