"""The ledger answers like a dict through kills, clocks that run backwards, and foreign or damaged files."""

import uuid
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from imgtx.errors import StorageError, UsageError
from pipeline.ledger import ledger as ledger_module
from pipeline.ledger.ledger import Ledger
from pipeline.storage.store import Store, open_store
from pipeline.tables.hashing import bucket_of
from pipeline.tables.schemas import FAILED, LEDGER, LEDGER_PARTS, PENDING, WRITTEN
from tests.support.dying_store import DyingStore, Killed
from tests.support.ledger_rows import outcome, outcomes


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}/")


def names(store: Store) -> list[str]:
    return sorted(key for batch in store.list("ledger/") for key in batch["key"].to_pylist())


def sizes(ledger: Ledger) -> dict[str, int]:
    table = ledger.current(["key", "size"])
    assert len(table) == len(set(table["key"].to_pylist()))
    return dict(zip(table["key"].to_pylist(), table["size"].to_pylist(), strict=True))


def test_an_absent_ledger_is_empty(store):
    assert Ledger(store).current().equals(LEDGER.empty_table())
    assert [len(t) for t in Ledger(store).current_by_bucket(4)] == [0, 0, 0, 0]
    assert Ledger(store).compact() == 0
    Ledger(store).append(outcomes(), recipe="r", run="1")
    assert names(store) == []


def test_rows_are_read_back_as_written(store):
    row = outcome("ä/ö 100%.jpg", notes=["cmyk->srgb"], in_height=3, out_sha256="ab", seconds_decode=0.5)
    last = Ledger(store, clock=lambda: 1000).append(outcomes(row), recipe="r1", run="run7")
    (back,) = Ledger(store).current().to_pylist()
    assert last == 1000
    assert (back["recipe"], back["run"], back["sequence"]) == ("r1", "run7", 1000)
    assert {name: back[name] for name in row} == row


def test_the_newest_row_of_a_key_wins_within_and_across_parts(store):
    ledger = Ledger(store)
    ledger.append(
        outcomes(outcome("a", size=1), outcome("b", size=2), outcome("a", size=3)), recipe="r", run="1"
    )
    assert sizes(ledger) == {"a": 3, "b": 2}
    ledger.append(outcomes(outcome("b", size=4)), recipe="r", run="2")
    assert sizes(ledger) == {"a": 3, "b": 4}


def test_sequences_rise_even_if_clocks_go_back(store):
    for tick in (5_000, 100, 5_001, 4_000):
        Ledger(store, clock=lambda tick=tick: tick).append(
            outcomes(outcome("a", size=tick), outcome("b")), recipe="r", run=str(tick)
        )
    assert sizes(Ledger(store))["a"] == 4_000
    assert names(store) == sorted(names(store))
    assert [int(name[7:27]) for name in names(store)] == [5001, 5003, 5005, 5007]


def test_two_writers_at_the_same_time_keep_both_parts(store):
    first, second = Ledger(store, clock=lambda: 7), Ledger(store, clock=lambda: 7)
    first.append(outcomes(), recipe="r", run="1")
    second.append(outcomes(), recipe="r", run="2")
    first.append(outcomes(outcome("a")), recipe="r", run="1")
    second.append(outcomes(outcome("b")), recipe="r", run="2")
    assert set(sizes(Ledger(store))) == {"a", "b"}


def test_an_unfinished_row_raises_value_error_with_its_key(store):
    with pytest.raises(ValueError, match=r"'odd\.png'"):
        Ledger(store).append(outcomes(outcome("odd.png", status="")), recipe="r", run="1")
    assert names(store) == []


def test_compaction_keeps_the_newest_row_and_the_newest_written_one(store):
    ledger = Ledger(store)
    for status, output in [(WRITTEN, "a.png"), (WRITTEN, "a.jpg"), (FAILED, "a.tif"), (PENDING, "a.tif")]:
        ledger.append(outcomes(outcome("a", status=status, output=output)), recipe="r", run="1")
    before = [table.to_pylist() for table in ledger.state_by_bucket(1)]
    assert before[0][0]["written_output"] == "a.jpg"
    assert ledger.compact() == 4
    assert [table.to_pylist() for table in ledger.state_by_bucket(1)] == before
    (name,) = names(store)
    assert pq.read_table(pa.BufferReader(store.read(name)))["status"].to_pylist() == [WRITTEN, PENDING]
    assert ledger.compact() == 0


def test_the_state_of_a_key_never_written_names_no_file(store):
    Ledger(store).append(outcomes(outcome("a", status=FAILED)), recipe="r", run="1")
    (state,) = next(Ledger(store).state_by_bucket(1)).to_pylist()
    assert (state["written_output"], state["written_sequence"]) == ("", -1)


def test_buckets_partition_the_keys_before_and_after_compaction(store, monkeypatch):
    keys = [f"k{i}" for i in range(500)]
    ledger = Ledger(store)
    for start in range(0, 500, 50):
        ledger.append(outcomes(*(outcome(key) for key in keys[start : start + 50])), recipe="r", run="1")
    expected = ledger.current().sort_by("key")
    size = sum(sum(batch["size"].to_pylist()) for batch in store.list("ledger/"))
    monkeypatch.setattr(ledger_module, "BUCKET_BYTES", size // 5)
    for compacted in (False, True):
        if compacted:
            ledger.compact()
            assert len(names(store)) == 8
        for buckets in (1, 2, 8, 16):
            tables = list(ledger.current_by_bucket(buckets))
            assert len(tables) == buckets
            assert pa.concat_tables(tables).sort_by("key").equals(expected)
            for index, table in enumerate(tables):
                assert (bucket_of(table["key"], buckets) == index).all()
    ledger.append(outcomes(outcome("k7", size=99)), recipe="r", run="2")
    assert sum(table["size"].to_pylist().count(99) for table in ledger.current_by_bucket(8)) == 1
    ledger.compact()
    assert sizes(ledger) == dict.fromkeys(keys, 10) | {"k7": 99}
    assert len(names(store)) <= 8


def test_compaction_is_due_after_many_parts_or_many_bytes(store, monkeypatch):
    ledger = Ledger(store)
    monkeypatch.setattr(ledger_module, "LOOSE_PARTS", 3)
    for i in range(3):
        ledger.append(outcomes(outcome(f"k{i}")), recipe="r", run="1")
    assert not ledger.compact_if_due()
    ledger.append(outcomes(outcome("k3")), recipe="r", run="1")
    assert ledger.compact_if_due()
    assert len(names(store)) == 1
    ledger.append(outcomes(outcome("k4")), recipe="r", run="1")
    assert not ledger.compact_if_due()
    monkeypatch.setattr(ledger_module, "LOOSE_BYTES", 100)
    assert ledger.compact_if_due()
    assert len(sizes(ledger)) == 5


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_moment_of_a_compaction_changes_no_answer(monkeypatch, after):
    monkeypatch.setattr(ledger_module, "BUCKET_BYTES", 10_000)
    origin = open_store(f"memory://{uuid.uuid4().hex}/")
    for part in range(5):
        rows = [outcome(f"k{i}", size=part, status=FAILED if i % 3 == part else WRITTEN) for i in range(8)]
        Ledger(origin).append(outcomes(*rows), recipe="r", run=str(part))
    expected = Ledger(origin).current()
    state = pa.concat_tables(Ledger(origin).state_by_bucket(1))
    for moment in range(1, 50):
        store = open_store(f"memory://{uuid.uuid4().hex}/")
        for name in names(origin):
            store.write(name, origin.read(name))
        survived = False
        try:
            Ledger(DyingStore(store, moment, after=after)).compact()
            survived = True
        except Killed:
            pass
        assert Ledger(store).current().equals(expected)
        assert pa.concat_tables(Ledger(store).state_by_bucket(1)).equals(state)
        Ledger(store).compact()
        assert Ledger(store).current().sort_by("key").equals(expected.sort_by("key"))
        clean = len(names(store))
        assert Ledger(store).compact() == 0
        if survived:
            break
    assert survived
    assert moment > 6
    assert clean <= 4


@pytest.mark.parametrize("buckets", [1, 4])
def test_a_reader_survives_a_compaction_while_it_reads(store, buckets):
    ledger = Ledger(store)
    for i in range(3):
        ledger.append(outcomes(outcome("a", size=i)), recipe="r", run="1")

    class Compacting(DyingStore):
        def __init__(self):
            super().__init__(store, 0, after=False)
            self.read = self._read_late
            self.lock = Lock()

        def _read_late(self, key: str) -> bytes:
            with self.lock:
                Ledger(store).compact()
            return store.read(key)

    rows = pa.concat_tables(Ledger(Compacting()).current_by_bucket(buckets))
    assert rows["size"].to_pylist() == [2]


def test_a_part_that_stays_missing_is_an_error(store):
    Ledger(store).append(outcomes(outcome("a")), recipe="r", run="1")

    class Losing(DyingStore):
        def __init__(self):
            super().__init__(store, 0, after=False)
            self.read = lambda key: store.read(key + ".gone")

    with pytest.raises(StorageError):
        Ledger(Losing()).current()


def spoiled(name: str, store: Store) -> bytes:
    whole = store.read(name)
    foreign = pa.BufferOutputStream()
    pq.write_table(pa.table({"key": ["a"], "price": [1.0]}), foreign)
    flipped = bytearray(whole)
    keys = pq.ParquetFile(pa.BufferReader(whole)).metadata.row_group(0).column(0)
    flipped[keys.data_page_offset + keys.total_compressed_size - 1] ^= 1
    return {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "no_tail": whole[:-1],
        "text": b"key,size\n",
        "flipped": bytes(flipped),
        "foreign": foreign.getvalue().to_pybytes(),
    }


@pytest.mark.parametrize("damage", ["empty", "truncated", "no_tail", "text", "flipped", "foreign"])
def test_a_damaged_part_is_named_in_one_sentence(tmp_path: Path, damage):
    store = open_store(str(tmp_path))
    Ledger(store).append(outcomes(*(outcome(f"{i:040d}") for i in range(50))), recipe="r", run="1")
    (name,) = names(store)
    store.write(name, spoiled(name, store)[damage])
    with pytest.raises(UsageError) as caught:
        Ledger(store).current()
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        Ledger(store).compact()
    assert names(store) == [name]


def test_a_parquet_file_of_another_name_is_refused_and_other_files_are_not_read(store):
    Ledger(store).append(outcomes(outcome("a")), recipe="r", run="1")
    store.write("ledger/.DS_Store", b"x")
    store.write("ledger/notes.txt", b"x")
    assert sizes(Ledger(store)) == {"a": 10}
    store.write("ledger/my copy.parquet", b"x")
    with pytest.raises(UsageError, match=r"ledger/my copy\.parquet"):
        Ledger(store).current()


class LedgerMachine(RuleBasedStateMachine):
    """Append and compact in any order; the ledger answers like a dict."""

    def __init__(self):
        super().__init__()
        self.store = open_store(f"memory://{uuid.uuid4().hex}/")
        self.clock = 1_000
        self.ledger = Ledger(self.store, clock=lambda: self.clock)
        self.newest: dict[str, tuple] = {}
        self.written: dict[str, str] = {}

    @rule(
        rows=st.lists(
            st.tuples(
                st.sampled_from("abcdefgh"),
                st.sampled_from([WRITTEN, FAILED, PENDING]),
                st.sampled_from("xyz"),
            ),
            max_size=6,
        ),
        recipe=st.sampled_from(["r1", "r2"]),
    )
    def append(self, rows, recipe):
        table = outcomes(*(outcome(key, status=status, output=output) for key, status, output in rows))
        self.ledger.append(table, recipe=recipe, run="1")
        for key, status, output in rows:
            self.newest[key] = (status, output, recipe)
            if status == WRITTEN:
                self.written[key] = output

    @rule(change=st.integers(-500, 500))
    def another_run_on_another_clock(self, change):
        self.clock = max(0, self.clock + change)
        self.ledger = Ledger(self.store, clock=lambda: self.clock)

    @rule()
    def compact(self):
        self.ledger.compact()

    @precondition(lambda self: self.newest)
    @rule(moment=st.integers(1, 6), after=st.booleans())
    def die_while_compacting(self, moment, after):
        try:
            Ledger(DyingStore(self.store, moment, after=after)).compact()
        except Killed:
            self.ledger = Ledger(self.store, clock=lambda: self.clock)

    @invariant()
    def answers_like_a_dict(self):
        for buckets in (1, 4):
            state = pa.concat_tables(self.ledger.state_by_bucket(buckets)).to_pylist()
            assert {s["key"]: (s["status"], s["output"], s["recipe"]) for s in state} == self.newest
            assert {s["key"]: s["written_output"] for s in state if s["written_output"]} == self.written
            assert len(state) == len(self.newest)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=15, stateful_step_count=12)


def test_ledgers_from_before_inputs_and_measures_are_upgraded(tmp_path):
    store = open_store(str(tmp_path))
    ledger = Ledger(store)
    ledger.append(outcomes(outcome("a"), outcome("b", version="v mask w")), recipe="r", run="x")
    (part,) = (tmp_path / LEDGER_PARTS).iterdir()
    older = pq.read_table(part).drop_columns(["item", "inputs", "measures", "model", "quality"])
    pq.write_table(older, part)
    bare = [{"inputs": [], "measures": [], "model": "", "quality": -1}] * 2
    assert Ledger(store).current(["inputs", "measures", "model", "quality"]).to_pylist() == bare
    columns = {"mask": ["", "b.png"], "hole_share": [0.0, 0.5], "noise_level": [3.0, 0.0]}
    for name, values in columns.items():
        older = older.append_column(name, pa.array(values))
    pq.write_table(older, part)
    ledger.append(outcomes(outcome("c", measures={"hole_share": 0.25})), recipe="r", run="x")
    wanted = {
        "a": ([], {"noise_level": 3.0}),
        "b": ([{"role": "mask", "key": "b.png", "version": "w"}], {"hole_share": 0.5}),
        "c": ([], {"hole_share": 0.25}),
    }

    def read() -> dict:
        rows = Ledger(store).current(["key", "inputs", "measures"]).to_pylist()
        return {row["key"]: (row["inputs"], dict(row["measures"])) for row in rows}

    assert read() == wanted
    Ledger(store).compact()
    assert read() == wanted
    (part,) = (tmp_path / LEDGER_PARTS).iterdir()
    assert pq.read_schema(part).names == LEDGER.names
    pq.write_table(pq.read_table(part).drop_columns(["reason"]), part)
    with pytest.raises(UsageError, match="lacks the ledger's columns reason"):
        Ledger(store).current(["key"])
