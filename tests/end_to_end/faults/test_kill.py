"""Killed at any moment and started again, a run ends like one without faults.

IMGTX_FAULT_KILLS: number of kills in the nightly size, 20 by default.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.faults.conftest import COUNT, Archive, Command, Start, environment_of, title
from tests.support.archive import Destination, assert_sound, look

# `WITHIN` reports what hangs, with its output.
pytestmark = pytest.mark.timeout(3600)

NIGHTLY_KILLS = int(os.environ.get("IMGTX_FAULT_KILLS", "20"))
# Kills, images.
SIZES = [(3, COUNT), pytest.param(NIGHTLY_KILLS, 40 * NIGHTLY_KILLS, marks=pytest.mark.nightly)]
# Seconds for Ray's own processes to follow a killed driver.
GONE_WITHIN = 120.0


def assert_equal(found: Destination, undisturbed: Destination) -> None:
    assert_sound(found)
    assert found.files == undisturbed.files
    assert {key: row["output"] for key, row in found.rows.items()} == {
        key: row["output"] for key, row in undisturbed.rows.items()
    }
    assert {row["status"] for row in found.rows.values()} == {"written"}


def verify(destination: Path) -> int:
    from click.testing import CliRunner

    from jobs.cli import main

    before = signal.getsignal(signal.SIGTERM)
    try:
        return CliRunner().invoke(main, ["verify", str(destination)]).exit_code
    finally:
        signal.signal(signal.SIGTERM, before)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_driver(command: Command, chance: random.Random, outputs: int) -> None:
    """Send SIGKILL after at most `outputs` outputs and a moment more; in one case of four during startup."""
    if chance.random() < 0.25 or not outputs:
        time.sleep(chance.uniform(0, 8))
    else:
        target = chance.randint(1, outputs)
        assert command.wait_for(lambda: command.published() >= target), command.log.read_text()
        time.sleep(chance.uniform(0, 0.3))
    family = command.family()
    command.signal(signal.SIGKILL)
    command.process.wait()
    # Ray's agents take a minute or two more to notice; they do not touch outputs.
    deadline = time.monotonic() + GONE_WITHIN
    while working := [p for p in family if is_alive(p) and "agent" not in title(p).lower()]:
        assert time.monotonic() < deadline, f"outlived their driver: {working}"
        time.sleep(0.1)


@pytest.mark.parametrize(("kills", "count"), SIZES)
def test_a_run_survives_repeated_kills_of_its_driver(
    kills: int, count: int, start: Start, archive_of: Callable[[int], Archive], tmp_path: Path
):
    archive, chance, redone, done = archive_of(count), random.Random(kills), [], 0
    with archive.held() as sure:
        for _ in range(kills):
            command = start(archive.source, tmp_path / "out")
            kill_driver(command, chance, min(count // (2 * kills), max(0, sure - done)))
            assert command.process.returncode == -signal.SIGKILL, command.log.read_text()
            state = look(str(command.destination))
            done = len(state.outputs)
            redone.append(len(state.files) - done)
            assert set(state.files) <= set(archive.undisturbed.files)
    last = start(archive.source, tmp_path / "out")
    assert last.finish() == 0, last.log.read_text()
    assert_equal(look(str(last.destination)), archive.undisturbed)
    with environment_of(archive.server):
        assert verify(last.destination) == 0
    print(f"{len(redone)} kills of the driver: outputs without a row at each: {redone}")


@pytest.mark.parametrize(("kills", "count"), SIZES)
def test_a_run_continues_while_workers_are_killed(
    kills: int, count: int, start: Start, archive_of: Callable[[int], Archive], tmp_path: Path
):
    archive, chance, killed = archive_of(count), random.Random(kills), []
    with archive.held() as sure:
        command = start(archive.source, tmp_path / "out")
        while len(killed) < kills:
            # On a fast machine every image that is not held back is done by now: the next run is killed at once.
            target = min(sure, command.published() + chance.randint(1, count // (4 * kills)))
            assert command.wait_for(
                lambda target=target: command.published() >= target and bool(command.workers())
            ), command.log.read_text()
            victim = chance.choice(command.workers() or [None])
            if victim is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
                    killed.append(victim.pid)
    assert command.finish() == 0, command.log.read_text()
    assert_equal(look(str(command.destination)), archive.undisturbed)
    with environment_of(archive.server):
        assert verify(command.destination) == 0
    print(f"{len(killed)} workers killed; {command.summary()['seconds_work']} s")
