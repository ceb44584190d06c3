"""Tables larger than memory: rows are read back by bucket or in order, and no file is left."""

import os
import tempfile

import numpy as np
import pyarrow as pa
import pytest

from imgtx.errors import UsageError
from pipeline.tables import spill
from pipeline.tables.hashing import bucket_of, hash64
from pipeline.tables.spill import Rows, Spill, buckets_for

SCHEMA = pa.schema([("key", pa.string()), ("number", pa.int64())])


@pytest.fixture(params=[1, 3_000, 64 << 20], ids=["each table", "some tables", "in memory"])
def held(request, monkeypatch, tmp_path) -> int:
    monkeypatch.setattr(spill, "HELD_BYTES", request.param)
    monkeypatch.setattr(spill, "_BATCH_ROWS", 7)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return request.param


def tables(count: int, size: int) -> list[pa.Table]:
    numbers = [range(start, min(start + size, count)) for start in range(0, count, size)]
    return [pa.table([[f"k{n}" for n in some], [*some]], schema=SCHEMA) for some in numbers]


@pytest.mark.parametrize("buckets", [1, 2, 64, 1024])
def test_a_spill_gives_back_each_row_in_its_bucket(held, buckets):
    rows = Spill(SCHEMA)
    for table in tables(1000, 90):
        rows.add(table, hash64(table["key"]))
    assert rows.num_rows == 1000
    seen = []
    for index in range(buckets):
        table = rows.read(index, buckets)
        assert table.schema == SCHEMA
        assert (bucket_of(table["key"], buckets) == index).all()
        seen += table["number"].to_pylist()
    assert sorted(seen) == [*range(1000)]


def test_rows_give_back_any_slice_in_order(held):
    rows, whole = Rows(SCHEMA), pa.concat_tables(tables(500, 33))
    for table in tables(500, 33):
        rows.add(table)
    assert rows.slice().equals(whole)
    for offset, length in [
        (0, 1),
        (6, 2),
        (7, 7),
        (100, 250),
        (499, 1),
        (490, 50),
        (500, 5),
        (800, 5),
        (3, 0),
    ]:
        assert rows.slice(offset, length).equals(whole.slice(offset, length)), (offset, length)
    assert [len(table) for table in rows.tables(200)] == [200, 200, 100]


def test_without_rows_every_read_is_empty(held):
    assert Spill(SCHEMA).read(3, 8).equals(SCHEMA.empty_table())
    rows = Rows(SCHEMA)
    rows.add(SCHEMA.empty_table())
    assert rows.slice().equals(SCHEMA.empty_table())
    assert [*rows.tables(5)] == []


def test_temporary_files_have_no_name(held, tmp_path):
    rows = Rows(SCHEMA)
    rows.add(tables(300, 300)[0])
    assert rows.slice(299).num_rows == 1
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no disk that is always full")
def test_a_full_disk_is_one_line_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(spill, "HELD_BYTES", 1)
    with open("/dev/full", "r+b") as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda prefix: full)
        (table,) = tables(100_000, 100_000)
        with pytest.raises(UsageError, match=r"No space left on device.*TMPDIR"):
            Rows(SCHEMA).add(table)
        full.raw.close()


def test_the_count_of_buckets_is_a_power_of_two_that_grows_with_the_rows():
    assert [buckets_for(n) for n in (0, 1, 1 << 19, (1 << 19) + 1, 3 << 19, 1 << 30)] == [1, 1, 1, 2, 4, 1024]


def test_a_bucket_collects_rows_of_several_sorted_writes(monkeypatch):
    monkeypatch.setattr(spill, "HELD_BYTES", 1)
    rows = Spill(SCHEMA)
    for number in range(5):
        rows.add(pa.table([[f"{number}"], [number]], schema=SCHEMA), np.array([number % 2], np.uint64))
    assert rows.read(1, 1024)["number"].to_pylist() == [1, 3]
    assert rows.read(0, 2)["number"].to_pylist() == [0, 2, 4]
