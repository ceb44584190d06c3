"""A file is the old one or the whole new one, no matter what interrupts the writing."""

import os
from pathlib import Path

import pytest

from imgtx import files
from imgtx.files import remove_leftovers, replacing, write_atomically


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("data", [b"new", "new", lambda path: path.write_text("new")])
def test_bytes_text_or_a_function_replace_the_old_content(tmp_path, data, durable):
    path = tmp_path / "x.json"
    path.write_text("old and longer")
    write_atomically(path, data, durable=durable)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError("disk full")])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "x.json"
    path.write_text("old")

    def interrupted(temporary: Path) -> None:
        temporary.write_text("ha")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, interrupted, durable=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_durable_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    path, events = tmp_path / "x", []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: (events.append(("sync", path.exists())), sync(fd)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    write_atomically(path, b"x", durable=True)
    assert events == [("sync", False), "replace", ("sync", True)]
    events.clear()
    write_atomically(path, b"x", durable=False)
    assert events == ["replace"]


def test_a_temporary_file_that_was_removed_replaces_nothing(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with replacing(path, durable=False) as temporary:
        temporary.write_text("new")
        temporary.unlink()
    assert path.read_text() == "old"


def test_leftovers_of_a_killed_process_are_removed_and_other_files_are_kept(tmp_path):
    kept = {tmp_path / "checkpoint.pt", tmp_path / ".other.pt.1.tmp", tmp_path / "notes.tmp"}
    for path in (*kept, tmp_path / ".checkpoint.pt.0a.tmp"):
        path.touch()
    remove_leftovers(tmp_path / "checkpoint.pt")
    assert {*tmp_path.iterdir()} == kept
