"""Rows between Arrow and Python: round trips, shared buffers, exceptions turned into outcomes."""

import logging

import numpy as np
import pyarrow as pa
import pytest

from imgtx.errors import ImageError, StorageError
from pipeline.tables.rows import as_bytes, empty, rows_of, run_stage, to_table
from pipeline.tables.schemas import ENCODED, FAILED, OUTCOME, PIXELS, WORK, WRITTEN

PICTURE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def pixels_row(key: str = "a") -> dict:
    return {
        "key": key, "size": 7, "version": "v", "output": key + ".png", "notes": ["oriented"], "dtype": "uint8",
        "shape": (1, 2, 4, 3), "tiles": as_bytes(PICTURE), "alpha": b"", "carry": b"\x00\xff",
    }  # fmt: skip


def test_rows_survive_the_round_trip():
    table = to_table([pixels_row("a"), pixels_row("b")], PIXELS)
    assert table.schema == PIXELS
    first, second = rows_of(table)
    assert (first["key"], second["key"]) == ("a", "b")
    assert np.array_equal(
        np.frombuffer(second["tiles"], second["dtype"]).reshape(second["shape"])[0], PICTURE
    )
    assert second["notes"] == ["oriented"]
    assert second["carry"] == b"\x00\xff"
    assert second["status"] == ""
    assert not second["large"]
    assert to_table([first, second], PIXELS).equals(table)


@pytest.mark.parametrize("schema", [WORK, OUTCOME, PIXELS, ENCODED])
def test_a_table_without_rows_keeps_its_schema(schema):
    table = to_table([], schema)
    assert table.num_rows == 0
    assert table.schema == schema
    assert list(rows_of(table)) == []


@pytest.mark.parametrize("schema", [WORK, OUTCOME, PIXELS, ENCODED])
def test_absent_columns_get_their_empty_value_and_never_null(schema):
    table = to_table([{"key": "a", "surplus": 1}], schema)
    assert table.schema == schema
    assert not any(column.null_count for column in table.columns)
    (row,) = table.to_pylist()
    assert all(row[f.name] == empty(f.type) for f in schema if f.name != "key")


def test_pixels_are_shared_and_not_copied():
    """Neither reading a batch nor making a table copies pixels."""
    buffer = as_bytes(PICTURE)
    assert buffer.address == PICTURE.ctypes.data
    table = to_table([pixels_row() | {"tiles": buffer}], PIXELS)
    assert table["tiles"].chunk(0).buffers()[2].address == buffer.address
    (row,) = rows_of(table)
    assert row["tiles"].address == buffer.address


def test_pixels_in_another_memory_order_are_copied_into_c_order():
    turned = PICTURE[:, ::-1].transpose(1, 0, 2)
    assert bytes(as_bytes(turned)) == turned.tobytes()


def test_a_sliced_table_gives_its_own_rows():
    table = to_table([pixels_row(key) | {"tiles": key.encode() * 3} for key in "abc"], PIXELS).slice(1, 1)
    (row,) = rows_of(table)
    assert (row["key"], bytes(row["tiles"])) == ("b", b"bbb")


def raising(error: BaseException):
    def work(row):
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (ImageError("truncated", "it ends early"), "truncated", "it ends early"),
        (StorageError("forbidden", "no right to read", transient=False), "forbidden", "no right to read"),
        (MemoryError("12 GB"), "out_of_memory", "not enough memory for this image: 12 GB"),
        (ZeroDivisionError("by zero"), "bug", "ZeroDivisionError: by zero"),
    ],
)
def test_an_exception_becomes_the_rows_outcome(error, reason, message):
    row = run_stage("decode", pixels_row() | {"notes": []}, raising(error))
    assert (row["status"], row["stage"], row["reason"]) == (FAILED, "decode", reason)
    assert row["message"] == message
    assert row["key"] == "a"
    assert "tiles" not in row
    (kept,) = to_table([row], OUTCOME).to_pylist()
    assert kept["output"] == "a.png"


def test_a_bug_is_logged_with_its_key_and_traceback(caplog):
    with caplog.at_level(logging.ERROR):
        run_stage("encode", pixels_row("here/it/is"), raising(KeyError("x")))
    assert "'here/it/is'" in caplog.text
    assert "Traceback" in caplog.text


def test_long_messages_are_cut():
    row = run_stage("decode", pixels_row(), raising(ImageError("corrupt", "x" * 9999)))
    assert len(row["message"]) == 500


def test_a_keyboard_interrupt_is_not_turned_into_an_outcome():
    with pytest.raises(KeyboardInterrupt):
        run_stage("decode", pixels_row(), raising(KeyboardInterrupt()))


@pytest.mark.parametrize("status", [WRITTEN, FAILED])
def test_a_finished_row_passes_unchanged(status):
    row = pixels_row() | {"status": status}
    assert run_stage("encode", row, raising(AssertionError())) is row


def test_seconds_of_two_stages_add_up_in_one_column():
    row = run_stage("fetch", {"key": "a"}, lambda row: row)
    fetched = row["seconds_decode"]
    row = run_stage("decode", row, lambda row: row)
    assert row["seconds_decode"] > fetched > 0
    row = run_stage("publish", run_stage("encode", row, lambda row: row), raising(ImageError("storage", "")))
    assert row["seconds_encode"] > 0
    assert {name for name in row if name.startswith("seconds")} == {"seconds_decode", "seconds_encode"}


def test_every_stage_has_a_seconds_column_in_the_ledger():
    for stage in ("fetch", "decode", "transform", "encode", "publish"):
        (name,) = {n for n in run_stage(stage, {}, lambda row: row) if n.startswith("seconds")}
        assert pa.types.is_floating(OUTCOME.field(name).type)
