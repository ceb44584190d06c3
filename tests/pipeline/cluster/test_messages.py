"""What Ray prints and warns of during a run is in a file, which is named only if something went wrong."""

import logging
import tempfile
import warnings
from pathlib import Path

import pytest
from ray._private import worker

from pipeline.cluster.messages import messages_in_a_file


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def warn_as_ray() -> None:
    text = "The maximum number of concurrent tasks is set to 4"
    warnings.warn_explicit(text, UserWarning, "/lib/ray/data/operator.py", 1)


def test_dead_workers_are_named_in_the_file_and_the_file_at_the_end(folder: Path, capfd, caplog):
    printed = worker.print_worker_logs
    with caplog.at_level(logging.WARNING), messages_in_a_file():
        worker.print_to_stdstream(
            {"lines": ["A worker died"], "pid": "raylet", "is_err": False}, ignore_prefix=False
        )
        warn_as_ray()
    assert worker.print_worker_logs is printed
    (file,) = folder.iterdir()
    assert "raylet: A worker died" in file.read_text()
    assert "maximum number of concurrent tasks" in file.read_text()
    assert f"what Ray said meanwhile is in {file}" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_warnings_alone_are_forgotten(folder: Path, capfd, caplog):
    with messages_in_a_file():
        warn_as_ray()
    assert [*folder.iterdir()] == []
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("error", "kept"), [(RuntimeError, 1), (KeyboardInterrupt, 0)])
def test_after_a_failure_they_stay(folder: Path, error, kept: int):
    def fail() -> None:
        warn_as_ray()
        raise error

    with pytest.raises(error), messages_in_a_file():
        fail()
    assert len([*folder.iterdir()]) == kept


def test_other_warnings_are_shown(folder: Path):
    with pytest.warns(UserWarning, match="ours"), messages_in_a_file():
        warnings.warn("ours", UserWarning, stacklevel=1)


def test_a_full_disk_costs_the_messages_only(folder: Path, monkeypatch, capfd):
    def full(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", full)
    with messages_in_a_file():
        warn_as_ray()
    assert capfd.readouterr() == ("", "")
