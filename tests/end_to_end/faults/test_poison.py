"""Images that kill their worker, and faults that kill Ray, are recorded as such and affect nothing else."""

import contextlib
import signal
import threading
from pathlib import Path

import psutil
import pytest

from pipeline.storage.store import open_store
from tests.end_to_end.faults.conftest import Archive, Start, only_ray
from tests.end_to_end.faults.test_kill import assert_equal
from tests.support.archive import assert_sound, fill, look
from tests.support.poison import kill_worker_with_the_large_image
from tests.support.zoo import photo, saved

# `WITHIN` reports what hangs, with its output.
pytestmark = pytest.mark.timeout(3600)

NEIGHBOURS = 24


@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.nightly)])
def test_images_that_kill_their_worker_are_recorded_and_others_survive(
    count: int, start: Start, tmp_path: Path
):
    """Five exceed the number of restarts of one actor."""
    store = open_store(str(tmp_path / "source"))
    keys = fill(store, NEIGHBOURS)
    poison = [f"0/image-{number:04d}-poison.png" for number in range(3, 3 + count)]
    for key in poison:
        store.write(key, saved(photo(2400, 2400)))
    (tmp_path / "spool").mkdir()
    command = start(
        tmp_path / "source",
        tmp_path / "out",
        *("--set", "stream_megapixels=1", "--max-failed", "5"),
        TMPDIR=str(tmp_path / "spool"),
        RAY_TMPDIR="/tmp",
    )
    killed: list[int] = []
    watcher = threading.Thread(
        target=kill_worker_with_the_large_image,
        args=(command.workers, lambda: command.process.poll() is None, killed),
        daemon=True,
    )
    watcher.start()
    assert command.finish() == 0, command.log.read_text()
    watcher.join()
    found = look(str(command.destination))
    # Each is tried alone, twice.
    assert len(killed) >= 2 * len(poison)
    assert set(found.outputs) == set(keys)
    outcomes = {(found.rows[key]["status"], found.rows[key]["reason"]) for key in poison}
    assert outcomes == {("failed", "worker_crash")}
    assert command.summary()["reasons"] == {"worker_crash": len(poison)}
    print(f"{len(poison)} poison images: {len(killed)} workers killed, {command.summary()['seconds_work']} s")
    assert_sound(found)


@only_ray
def test_killing_ray_ends_the_run_without_failing_any_image(start: Start, archive: Archive, tmp_path: Path):
    with archive.held():
        command = start(archive.source, tmp_path / "out")
        assert command.wait_for(lambda: command.published() >= 20)
        for process in command.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() == "raylet":
                    process.send_signal(signal.SIGKILL)
        code, said = command.finish(), command.log.read_text()
    assert "Traceback" not in said
    # 1 without a message: Ray's C++ side ends the driver after some ten seconds, on a busy machine before it stops.
    assert code in (130, 1), said
    if code == 130:
        assert "Ray's own processes ended" in said
        assert "run the same command" in said
    found = look(str(command.destination))
    # No row if Ray ended before the driver had read its first outcome: workers write the images.
    assert {row["status"] for row in found.rows.values()} <= {"written"}
    again = start(archive.source, tmp_path / "out")
    assert again.finish() == 0, again.log.read_text()
    assert again.summary()["current"] == len(found.rows)
    assert_equal(look(str(again.destination)), archive.undisturbed)
