"""The state of a run can be read from its destination on any machine, also when the run is dead."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jobs.inspect import watch
from pipeline.ledger import lease
from pipeline.ledger.lease import Lease
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import LEASES
from tests.support.archive import fill, save_tiny_model
from tests.support.commands import complaint, imgtx, without_ray


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a destination with a run of three images, one of which failed."""
    folder = tmp_path_factory.mktemp("watched")
    model = save_tiny_model(folder / "tiny.safetensors")
    fill(open_store(str(folder / "in")), 3)
    (folder / "in" / "bad.png").write_bytes(b"none")
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        ran = imgtx("upscale", str(folder / "in"), str(folder / "out"), "--model", model)
    assert ran.exit_code == 3, ran.output
    return folder / "out"


@pytest.fixture
def status(finished: Path):
    """Return a function that changes the run's status; the old one is restored afterwards."""
    (path,) = finished.glob("runs/*/status.json")
    before = path.read_text()
    yield lambda **changes: path.write_text(json.dumps(json.loads(before) | changes))
    path.write_text(before)


def held_by_another_host(store: Store, beat: int) -> None:
    holder = replace(
        lease._this_process("r"), machine="elsewhere", host="node-7", pid=42, beat=beat, token="t"
    )
    store.write(f"{LEASES}999999.json", json.dumps(asdict(holder)).encode())


def test_a_finished_run_is_reported_with_its_exit_code(finished, status):
    result = imgtx("watch", str(finished))
    # One of four failed.
    assert result.exit_code == 3
    assert "written 3 + current 0 + skipped 0 + failed 1" in result.stderr
    status(failed=0)
    assert imgtx("watch", str(finished)).exit_code == 0
    status(state="interrupted")
    assert imgtx("watch", str(finished)).exit_code == 130


def test_a_running_status_without_a_lease_means_a_dead_run(finished, status):
    status(state="running")
    result = imgtx("watch", str(finished), "--json")
    assert result.exit_code == 3
    assert "killed" in json.loads(result.stdout.splitlines()[-1])["run"]["state"]


def test_a_holder_on_another_host_is_alive_while_it_renews(finished, status, monkeypatch):
    store = open_store(str(finished))
    status(state="running", written=1, pending=2, failed=1, failed_before=0, to_do=4, left=0, seconds=10.0,
           waiting_for="", megapixels_per_second=0.5, images_per_second=1.0, seconds_left=10,
           reasons={"not_an_image": 1})  # fmt: skip
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    pulse = watch.HeartbeatMonitor()
    for beat in range(3):
        held_by_another_host(store, beat)
        sight = watch.look(store, pulse)
        assert sight
        assert not sight.over
        now[0] += 50.0
    assert watch.line(sight) == (
        "2/4 images  0.5 MP/s  ETA 0:00:10  failed 1 (not_an_image 1)  on node-7, process 42"
    )
    now[0] += 11.0
    sight = watch.look(store, pulse)
    assert sight
    assert "killed" in sight.state
    (finished / LEASES / "999999.json").unlink()


def test_watch_waits_for_the_first_run(tmp_path, finished, monkeypatch):
    """A job that was just submitted has written nothing yet."""
    place = tmp_path / "out"
    place.mkdir()
    slept: list[float] = []

    def arrives(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            (place / "runs").symlink_to(finished / "runs")
            (place / "ledger").symlink_to(finished / "ledger")

    monkeypatch.setattr(watch.time, "sleep", arrives)
    result = imgtx("watch", str(place), "--every", "2")
    assert slept == [2.0] * 3
    assert result.stderr.splitlines()[:3] == ["no run here yet"] * 3


def test_a_live_run_is_shown(tmp_path, finished, status, monkeypatch):
    status(state="running")
    seen: list[float] = []

    def ends(seconds: float) -> None:
        seen.append(seconds)
        status(state="done")

    monkeypatch.setattr(watch.time, "sleep", ends)
    with Lease(open_store(str(finished)), "r"):
        result = imgtx("watch", str(finished))
    assert seen == [5.0]
    assert "process" in result.stderr.splitlines()[0]


def test_watch_can_wait_for_the_run_after_a_finished_one(finished, monkeypatch):
    (run,) = (finished / "runs").iterdir()
    following = run.with_name("29991231T000000-next")

    def begins(seconds: float) -> None:
        following.symlink_to(run)

    monkeypatch.setattr(watch.time, "sleep", begins)
    result = imgtx("watch", str(finished), "--wait-for-next")
    assert result.stderr.splitlines()[0] == "no run here yet"
    assert result.exit_code == 3
    following.unlink()


def test_invalid_arguments_are_refused(tmp_path):
    assert "--every 0" in complaint("watch", str(tmp_path), "--every", "0")
    assert str(tmp_path / "none") in complaint("watch", str(tmp_path / "none"))
