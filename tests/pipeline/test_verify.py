"""Verify finds every difference between a destination and its ledger, and none where there is none."""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from imgtx.errors import StorageError
from pipeline import verify as verify_module
from pipeline.ledger.ledger import Ledger
from pipeline.planning.plan import make_plan
from pipeline.sources.images import ImageFolder, inventory
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import FAILED, PENDING
from pipeline.verify import PROBLEM, PROBLEMS, VerifyReport, mark_pending, verify
from tests.support.ledger_rows import outcome, outcomes

KEYS = ["a.png", "b.png", "sub/c ä.png", "d.png"]


def png(value: int, width: int = 8, height: int = 6) -> bytes:
    buffer = BytesIO()
    Image.new("L", (width, height), value).save(buffer, "PNG")
    return buffer.getvalue()


def listed(source: Store) -> Iterator[pa.RecordBatch]:
    return ImageFolder(source).list(local_destination=False)


class Archive:
    """A source of four images and a destination where each is upscaled x2, as after a run."""

    def __init__(self, folder: Path):
        self.source, self.destination = (
            open_store(str(folder / "source")),
            open_store(str(folder / "destination")),
        )
        self.ledger = Ledger(self.destination)
        for value, key in enumerate(KEYS):
            self.source.write(key, png(value, 4, 3))
            self.write(key, png(100 + value))

    def write(self, key: str, data: bytes, **columns) -> None:
        """Write the output of `key` and its row."""
        stat = self.source.stat(key)
        row = outcome(
            key,
            version=stat[1] if stat else "gone",
            in_height=3,
            in_width=4,
            out_height=6,
            out_width=8,
            out_bytes=len(data),
            out_sha256=hashlib.sha256(data).hexdigest(),
        )
        row |= columns
        self.destination.write("images/" + row["output"], data)
        self.ledger.append(outcomes(row), recipe="r", run="1")

    def verify(self, **options) -> VerifyReport:
        return verify(listed(self.source), self.destination, self.ledger, **options)

    def found(self, **options) -> set[tuple[str, str, str]]:
        report = self.verify(**options)
        assert report.problems.schema == PROBLEM
        rows = report.problems.to_pylist()
        assert all(row["message"] for row in rows)
        for problem in PROBLEMS:
            assert report.counts.get(problem, 0) == sum(row["problem"] == problem for row in rows)
        return {(row["problem"], row["key"], row["output"]) for row in rows}

    def planned(self) -> dict[str, str]:
        plan = make_plan(inventory(self.source), self.ledger, recipe="r", requested_format="same")
        return {row["key"]: row["output"] for row in plan.work.slice().to_pylist()}


@pytest.fixture
def archive(tmp_path) -> Archive:
    return Archive(tmp_path)


def test_a_sound_archive_has_no_problems(archive):
    report = archive.verify()
    assert report.problems.num_rows == 0
    assert report.counts == {"written": 4, "listed": 4, "vanished": 0, "read": 4}
    assert report.to_dict() == {"counts": report.counts, "problems": []}


def test_an_empty_archive_has_no_problems(tmp_path):
    source, destination = open_store(str(tmp_path / "s")), open_store(str(tmp_path / "d"))
    source.write("readme.txt", b"x")
    destination.write("runs/1/spec.json", b"{}")
    assert verify(listed(source), destination, Ledger(destination)).problems.num_rows == 0


def test_deleted_truncated_and_swapped_outputs_are_found(archive):
    archive.destination.delete("images/a.png")
    archive.destination.write("images/b.png", png(101)[:-3])
    archive.destination.write("images/sub/c ä.png", png(103))
    archive.destination.write("images/d.png", png(103) + b"more")
    assert len(png(102)) == len(png(103))
    expected = {
        ("deleted", "a.png", "a.png"),
        ("truncated", "b.png", "b.png"),
        ("swapped", "sub/c ä.png", "sub/c ä.png"),
        ("swapped", "d.png", "d.png"),
    }
    assert archive.found() == expected
    assert archive.found(deep=False) == {row for row in expected if row[1] != "sub/c ä.png"}


@pytest.mark.parametrize("largest", [32 << 20, 10])
def test_large_outputs_are_read_through_a_file(archive, monkeypatch, largest):
    monkeypatch.setattr(verify_module, "_IN_MEMORY", largest)
    archive.destination.write("images/a.png", png(101))
    assert archive.found() == {("swapped", "a.png", "a.png")}


def test_without_deep_nothing_is_read(archive, monkeypatch):
    def refuse(self: Store, key: str, *_: str) -> bytes:
        assert not key.startswith("images/")
        return real(self, key)

    real = Store.read
    monkeypatch.setattr(Store, "read", refuse)
    monkeypatch.setattr(Store, "download", refuse)
    assert archive.verify(deep=False).counts["read"] == 0
    with pytest.raises(AssertionError):
        archive.verify()


def test_dimensions_are_checked_against_header_and_scale(archive):
    # The header differs from the row.
    archive.write("a.png", png(1, width=9))
    # 4 x 3 -> 14 x 6.
    archive.write("b.png", png(1, 14, 6), out_width=14)
    archive.write("d.png", b"not an image")
    assert archive.found() == {("dimensions", key, key) for key in ("a.png", "b.png", "d.png")}


def test_a_row_without_input_dimensions_is_not_checked(archive):
    archive.write("a.png", png(1, 9, 5), in_height=0, in_width=0, out_height=5, out_width=9)
    assert archive.found() == set()


def test_orphans_are_files_that_no_current_row_names(archive):
    archive.destination.write("images/sub/stray.png", png(1))
    archive.destination.write("elsewhere/stray.png", png(1))
    version = {key: archive.source.stat(key)[1] for key in KEYS}
    rows = [
        outcome("a.png", version=version["a.png"], status=FAILED, reason="corrupt"),
        outcome("b.png", version=version["b.png"], status=PENDING),
    ]
    archive.ledger.append(outcomes(*rows), recipe="r", run="2")
    assert archive.found() == {("orphan", "", "sub/stray.png"), ("orphan", "a.png", "a.png")}


def test_an_overwritten_file_is_no_problem_once_its_key_left_the_source(archive):
    # The same file as a.png's on a file system that ignores case.
    archive.write("d.png", png(7), output="A.png")
    archive.destination.delete("images/d.png")
    assert ("doubled", "a.png", "a.png") in archive.found()
    archive.source.delete("a.png")
    report = archive.verify()
    assert "doubled" not in report.counts
    assert report.counts["vanished"] == 1


def test_source_images_without_a_row_or_of_another_version_are_found(archive):
    archive.source.write("new.png", png(1))
    archive.source.write("notes.txt", b"no image")
    archive.source.write("a.png", png(200, 5, 3))
    assert archive.found() == {("no_row", "new.png", ""), ("changed", "a.png", "a.png")}


def test_an_output_that_the_storage_refuses_is_unreadable(archive, monkeypatch):
    def refuse(self: Store, key: str) -> bytes:
        if key == "images/a.png":
            raise StorageError("forbidden", "cannot read it")
        if key == "images/b.png":
            raise StorageError("not_found", "gone since it was listed")
        return real(self, key)

    real = Store.read
    monkeypatch.setattr(Store, "read", refuse)
    assert archive.found() == {("unreadable", "a.png", "a.png"), ("deleted", "b.png", "b.png")}


def test_keys_marked_pending_run_again_and_the_archive_is_sound_afterwards(archive):
    assert archive.planned() == {}
    archive.destination.delete("images/a.png")
    archive.destination.write("images/sub/c ä.png", b"x")
    damaged = archive.verify().damaged_keys()
    assert sorted(damaged) == ["a.png", "sub/c ä.png"]
    assert mark_pending(archive.ledger, [*damaged, "no such key"]) == 2
    assert archive.planned() == {"a.png": "a.png", "sub/c ä.png": "sub/c ä.png"}
    assert archive.found() == set()
    for key in archive.planned():
        archive.write(key, png(9))
    assert archive.planned() == {}
    assert archive.verify().counts["written"] == 4


def test_damage_whose_source_is_gone_is_reported_but_not_marked_pending(archive):
    archive.source.delete("a.png")
    archive.destination.delete("images/a.png")
    report = archive.verify()
    assert report.problems["redoable"].to_pylist() == [False]
    assert report.damaged_keys() == []
    assert mark_pending(archive.ledger, []) == 0
