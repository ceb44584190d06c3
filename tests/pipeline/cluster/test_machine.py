"""What keeps Ray from starting is named in one line, before it is tried."""

import os
import resource
from pathlib import Path

import pytest

from imgtx.errors import ClusterError
from pipeline.cluster import machine
from pipeline.cluster.machine import RayEndedError, check_machine, object_folder, ray_folder


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Folders of tests are too long for sockets: allow for them, and forget those of the system."""
    base = tmp_path_factory.mktemp("s")
    monkeypatch.setattr(machine, "MAX_FOLDER_BYTES", len(os.fsencode(base)) + 60)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    return base


def only(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    monkeypatch.setattr(machine, "_candidates", lambda: [str(folder) for folder in folders])


def test_a_folder_that_is_too_long_is_passed_over(short: Path, monkeypatch: pytest.MonkeyPatch):
    long = short / ("x" * 107)
    long.mkdir()
    only(monkeypatch, long, short)
    with ray_folder() as folder:
        assert folder.parent == short
        (folder / "log").write_text("said")
    assert [*short.iterdir()] == [long]


def test_where_no_folder_can_be_used_each_is_named_with_its_cause(
    short: Path, monkeypatch: pytest.MonkeyPatch
):
    long, absent = short / ("x" * 107), short / "absent"
    long.mkdir()
    only(monkeypatch, long, absent)
    with pytest.raises(ClusterError) as error, ray_folder():
        pass
    assert f"{long} is too long by" in str(error.value)
    assert f"{absent} is not a folder" in str(error.value)
    assert "set RAY_TMPDIR" in str(error.value)
    only(monkeypatch, short)
    monkeypatch.setattr(machine, "MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(ClusterError, match=r"has only \d+ MB left"), ray_folder():
        pass


@pytest.mark.parametrize(
    ("error", "kept"), [(ClusterError("no"), 1), (RayEndedError("died"), 1), (KeyboardInterrupt(), 0)]
)
def test_the_logs_of_a_ray_that_failed_stay_for_a_day(
    short: Path, monkeypatch, error: BaseException, kept: int
):
    only(monkeypatch, short)
    with pytest.raises(type(error)), ray_folder():
        raise error
    assert len([*short.iterdir()]) == kept
    monkeypatch.setattr(machine, "KEEP_SECONDS", -1)
    # Its process is gone.
    for folder in short.iterdir():
        folder.rename(short / f"{machine.PREFIX}4194305-x")
    with ray_folder():
        assert len([*short.iterdir()]) == 1


def test_no_loopback_is_named(monkeypatch: pytest.MonkeyPatch):
    def refuse(*address):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.create_server", refuse)
    with pytest.raises(ClusterError, match=r"nothing can connect to 127\.0\.0\.1 .*unreachable.*loopback"):
        check_machine()


@pytest.mark.parametrize(
    ("soft", "hard", "ends"), [(64, 64, "refused"), (64, 4096, "raised"), (1024, 1024, "")]
)
def test_a_low_limit_of_open_files_is_raised_or_named(monkeypatch: pytest.MonkeyPatch, soft, hard, ends):
    was = []
    monkeypatch.setattr(machine, "check_loopback", lambda: None)
    monkeypatch.setattr(machine, "check_processes", lambda: None)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: was.append(limits))
    if ends == "refused":
        with pytest.raises(ClusterError, match="may have 64 open files"):
            check_machine()
    else:
        check_machine()
    assert was == ([(machine.MIN_FILES, hard)] if ends == "raised" else [])


def test_a_limit_of_processes_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(machine, "check_loopback", lambda: None)
    monkeypatch.setattr(machine, "check_open_files", lambda: None)
    monkeypatch.setattr(machine, "CGROUPS", (tmp_path / "none", tmp_path))
    (tmp_path / "pids.max").write_text("max\n")
    (tmp_path / "pids.current").write_text("20\n")
    check_machine()
    (tmp_path / "pids.max").write_text("150\n")
    with pytest.raises(ClusterError, match=r"this container may have 150 processes and threads .* has 20"):
        check_machine()
    (tmp_path / "pids.max").unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (150, 150))
    with pytest.raises(ClusterError, match=r"this user may have 150 .*ulimit -u"):
        check_machine()


def test_objects_go_to_the_folder_where_shared_memory_cannot_be_written(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    assert object_folder(tmp_path) is None
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    assert object_folder(tmp_path) is None
    monkeypatch.setattr(os, "access", lambda path, how: False)
    assert object_folder(tmp_path) == str(tmp_path)
