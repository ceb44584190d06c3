"""Ctrl-C, SIGTERM and a closed terminal stop cleanly: exit code 130, soon, and the same command continues."""

import signal
import time
from pathlib import Path

import pytest

from tests.end_to_end.faults.conftest import Archive, Command, Start, only_ray, title
from tests.end_to_end.faults.test_kill import assert_equal
from tests.support.archive import look

# `WITHIN` reports what hangs, with its output.
pytestmark = pytest.mark.timeout(3600)

# It takes a few seconds; a busy machine needs most of this to end Ray's processes.
SOON = 120.0
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm", "sighup"])
def test_a_run_can_be_stopped_while_it_processes_images(
    how: str, start: Start, archive: Archive, tmp_path: Path
):
    with archive.held():
        command = start(archive.source, tmp_path / "out", "--workers", "1")
        assert command.wait_for(lambda: command.published() >= 1)
        asked = time.monotonic()
        stop(command, how)
        assert command.finish() == 130, command.log.read_text()
    assert time.monotonic() - asked < SOON
    said = command.log.read_text()
    assert "run the same command to continue" in said
    assert "Traceback" not in said
    state = look(str(command.destination))
    assert len(state.outputs) < archive.count
    again = start(archive.source, tmp_path / "out")
    assert again.finish() == 0, again.log.read_text()
    assert again.summary()["current"] == len(state.outputs)
    assert_equal(look(str(again.destination)), archive.undisturbed)


@only_ray
def test_a_run_can_be_stopped_while_ray_starts(start: Start, archive: Archive, tmp_path: Path):
    with archive.held():
        command = start(archive.source, tmp_path / "out")
        assert command.wait_for(lambda: any("gcs_server" in title(process) for process in command.family()))
        asked = time.monotonic()
        stop(command, "ctrl-c")
        assert command.finish() == 130, command.log.read_text()
    assert time.monotonic() - asked < SOON
    assert "Traceback" not in command.log.read_text()


def test_stopped_while_processes_start(start: Start, archive: Archive, tmp_path: Path):
    with archive.held():
        command = start(archive.source, tmp_path / "out")
        assert command.wait_for(lambda: bool(command.workers()))
        stop(command, "ctrl-c")
        assert command.finish() == 130, command.log.read_text()
    assert "Traceback" not in command.log.read_text()


def test_ray_listens_on_loopback_only(start: Start, engine: str, archive: Archive, tmp_path: Path):
    """Ray's processes run any code that reaches their ports; the local engine's have none."""
    with archive.held():
        command = start(archive.source, tmp_path / "out")
        assert command.wait_for(lambda: command.published() >= 1)
        addresses = command.listens_at()
    assert addresses <= LOOPBACK
    assert bool(addresses) == (engine == "ray")
    assert command.finish() == 0, command.log.read_text()


def stop(command: Command, how: str) -> None:
    if how == "ctrl-c":
        command.signal_group(signal.SIGINT)
    else:
        command.signal(signal.SIGHUP if how == "sighup" else signal.SIGTERM)
