"""One process at a time trains in a folder, and a start that is refused leaves nothing in it."""

import os
from pathlib import Path

import pytest

from imgtx.errors import LeaseHeldError, UsageError
from imgtx.training.folder import LOCK, held_folder
from imgtx.training.log import TrainingLog


def test_a_second_process_is_refused_with_the_name_of_the_first(tmp_path):
    folder = tmp_path / "run"
    with held_folder(folder):
        (folder / "checkpoint.pt").write_bytes(b"of the first")
        # flock tells descriptors apart, so one process can play both.
        with (
            pytest.raises(LeaseHeldError, match=rf"^process {os.getpid()} on host .* trains in .*run"),
            held_folder(folder),
        ):
            pytest.fail("both hold it")
        assert (folder / LOCK).exists()
    assert [path.name for path in folder.iterdir()] == ["checkpoint.pt"]
    with held_folder(folder):
        pass


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path):
    (tmp_path / LOCK).write_text(
        "process 1 on host gone, since yesterday, and many more words than the next one's"
    )
    with held_folder(tmp_path):
        assert "gone" not in (tmp_path / LOCK).read_text()
    assert not (tmp_path / LOCK).exists()


def test_a_lock_that_its_holder_removes_meanwhile_is_not_taken_for_one(tmp_path, monkeypatch):
    """Between opening the file and locking it the holder may end: the locked file has no name then."""
    opened = os.open

    def and_removed(path: Path, flags: int, mode: int = 0o777) -> int:
        lock = opened(path, flags, mode)
        monkeypatch.setattr(os, "open", opened)
        os.unlink(path)
        return lock

    monkeypatch.setattr(os, "open", and_removed)
    with held_folder(tmp_path), pytest.raises(LeaseHeldError), held_folder(tmp_path):
        pytest.fail("both hold it")


def test_folders_that_were_made_and_stay_empty_go_away(tmp_path):
    with (
        pytest.raises(UsageError),
        held_folder(tmp_path / "runs" / "a"),
        TrainingLog(tmp_path / "runs" / "a", "l1"),
    ):
        raise UsageError("no pictures")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with held_folder(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(UsageError, match=r"file/run cannot be written to \(Not a directory\)"),
        held_folder(tmp_path / "file" / "run"),
    ):
        pass
