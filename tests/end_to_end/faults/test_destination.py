"""A destination that fills up while a run writes to it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgtx.errors import DONE, FAILURES
from tests.end_to_end.faults.conftest import Archive, Start, starting
from tests.support.archive import look
from tests.support.s3server import S3Server

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def start(tmp_path: Path, model: str, source_server: S3Server) -> Iterator[Start]:
    (tmp_path / "logs").mkdir()
    with starting(model, tmp_path / "logs", source_server, "local") as start:
        yield start


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 256 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = shutil.which("mount") and os.getuid() == 0
    if (
        not made
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=False).returncode
    ):
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_stops_the_run_and_room_lets_it_continue(
    start: Start, archive: Archive, small_disk: Path
):
    out = small_disk / "out"
    command = start(archive.source, out)
    assert command.finish() == FAILURES, command.log.read_text()
    said = command.log.read_text()
    assert f"no space left on {out}: " in said
    assert "the same command continues" in said
    assert "Traceback" not in said
    assert not list((out / "images").rglob(".imgtx*"))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    again = start(archive.source, out)
    assert again.finish() == DONE, again.log.read_text()
    summary = again.summary()
    assert (summary["written"] + summary["current"], summary["failed"]) == (archive.count, 0)
    assert look(str(out)).outputs == archive.undisturbed.outputs
