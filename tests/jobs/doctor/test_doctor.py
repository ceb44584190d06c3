"""`imgtx doctor` names what is missing, in one line with its remedy; the exit code says whether a run would work."""

import json
import os
import resource
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from imgtx.errors import DONE, FAILURES, USAGE, ClusterError
from imgtx.memory import CONTAINER, MACHINE, Memory
from jobs.cli import main
from jobs.doctor import destination as destination_module
from jobs.doctor import machine as machine_module
from jobs.doctor.destination import check_destination, file_system
from jobs.doctor.findings import OK, PROBLEM, WARNING, Finding
from jobs.doctor.machine import Where, check_machine

MB = 1 << 20


@pytest.fixture(autouse=True)
def a_good_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrong but what a test makes wrong; no sockets."""
    monkeypatch.setattr(machine_module, "memory_at_hand", lambda: Memory(64_000 * MB, 60_000 * MB, MACHINE))
    monkeypatch.setattr(machine_module, "usable_cores", lambda: 4)
    monkeypatch.setattr(machine_module, "gpu_in_sight", lambda: False)
    monkeypatch.setattr(machine_module, "check_loopback", lambda: None)
    monkeypatch.setattr(machine_module, "find_folder", lambda: "/tmp")
    monkeypatch.setattr(machine_module, "check_processes", lambda: None)
    monkeypatch.setattr(machine_module, "check_open_files", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def found(
    engine: str = "auto", environment: dict | None = None, address: str | None = None
) -> dict[str, Finding]:
    return {one.check: one for one in check_machine(Where(engine, address), environment or {})}


def doctor(*arguments: str, code: int = DONE) -> str:
    done = CliRunner().invoke(main, ["doctor", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_a_good_machine_and_a_new_folder(tmp_path: Path):
    said = doctor(str(tmp_path / "new" / "out"))
    assert "problem" not in said
    assert "can be written, listed, read and deleted" in said
    assert [*tmp_path.iterdir()] == []
    report = json.loads(doctor(str(tmp_path), "--json"))
    assert report["ok"]
    assert {"check", "level", "text", "remedy"} == {*report["findings"][0]}


@pytest.mark.parametrize(
    ("free", "engine", "level", "says"),
    [
        (700, "auto", PROBLEM, "a run needs about 900 MB"),
        (1_200, "auto", WARNING, "Ray needs about 1,600 MB"),
        (1_200, "ray", PROBLEM, "a run needs about 1,600 MB"),
        (1_200, "local", WARNING, "room for 1 worker on 4 cores"),
        (2_300, "ray", WARNING, "room for 2 workers on 4 cores"),
        (4_000, "auto", OK, "this container"),
    ],
)
def test_too_little_memory_says_what_is_needed(monkeypatch, free: int, engine: str, level: str, says: str):
    monkeypatch.setattr(machine_module, "memory_at_hand", lambda: Memory(4_000 * MB, free * MB, CONTAINER))
    finding = found(engine)["memory"]
    assert finding.level == level
    assert says in finding.text
    assert level == OK or "give the container more" in finding.remedy


def test_what_only_ray_lacks_is_a_problem_only_for_ray(monkeypatch):
    def none():
        raise ClusterError(
            "Ray cannot start here: nothing can connect to 127.0.0.1: bring it up, or take --engine local"
        )

    monkeypatch.setattr(machine_module, "check_loopback", none)
    assert found("auto")["loopback"].level == WARNING
    assert found("ray")["loopback"].level == PROBLEM
    assert "loopback" not in found("local")
    assert found("ray")["loopback"].remedy == "bring it up, or take --engine local"
    doctor("--engine", "ray", code=FAILURES)
    doctor("--engine", "local")


def test_disks_without_room(monkeypatch, tmp_path: Path):
    usage = SimpleNamespace(free=500 * MB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert found()["temporary folder"].level == WARNING
    assert "set TMPDIR" in found()["temporary folder"].remedy
    assert "--shm-size" in found()["shared memory"].remedy
    (room,) = [one for one in check_destination(str(tmp_path), None, shared=False) if one.check == "room"]
    assert room.level == WARNING
    assert "500 MB free" in room.text


def test_no_temporary_folder_is_a_problem(monkeypatch):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    assert found()["temporary folder"].level == PROBLEM


def test_a_limit_of_addresses_is_named(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4 << 30, resource.RLIM_INFINITY))
    assert "ulimit -v" in found("local")["address space"].text


def test_slurm(monkeypatch):
    given = {"SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "2", "SLURM_STEP_NUM_TASKS": "1"}
    assert "the Slurm job 17" in found(environment=given)["surroundings"].text
    assert "--workers 2" in found(environment=given)["slurm"].remedy
    assert "slurm" not in found(environment=given | {"SLURM_CPUS_PER_TASK": "4"})
    many = given | {"SLURM_CPUS_PER_TASK": "4", "SLURM_STEP_NUM_TASKS": "8"}
    assert "starts this command 8 times" in found(environment=many)["slurm"].text


def test_a_cluster_needs_no_ray_here_but_an_address_that_can_be_joined(tmp_path: Path):
    seen = found("auto", address="http://head:8265")
    assert seen["cluster"].level == PROBLEM
    assert "loopback" not in seen
    said = doctor(str(tmp_path), "--address", "http://head:8265", code=FAILURES)
    assert "every machine of the cluster must have" in said


def test_bad_options_and_places_are_named(tmp_path: Path):
    assert "--engine fast: must be one of auto, ray, local" in doctor("--engine", "fast", code=USAGE)
    assert "in the memory of one process" in doctor("memory://x", code=FAILURES)
    (tmp_path / "file").write_text("")
    assert "there is a file where a folder is needed" in doctor(str(tmp_path / "file"), code=FAILURES)


def test_storage_that_does_not_answer_is_named_in_time(monkeypatch, tmp_path: Path):
    end = threading.Event()
    monkeypatch.setattr(destination_module, "broken_promises", lambda store: [str(end.wait(60))])
    first = next(iter(check_destination(str(tmp_path), None, shared=False, seconds=0.05)))
    end.set()
    assert first.level == PROBLEM
    assert "has not answered" in first.text


def test_broken_promises_are_named(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(destination_module, "broken_promises", lambda store: ["one writer creates it"])
    said = doctor(str(tmp_path), code=FAILURES)
    assert "it does not hold that one writer creates it" in said


def test_a_run_at_work_is_named(tmp_path: Path):
    from pipeline.ledger.lease import Lease
    from pipeline.storage.store import open_store

    with Lease(open_store(str(tmp_path)), "the-run"):
        assert "run the-run" in doctor(str(tmp_path))


def test_the_file_system_of_a_path(tmp_path: Path):
    mounts = tmp_path / "mountinfo"
    real = os.path.realpath(tmp_path)
    mounts.write_text(
        "1 0 0:1 / / rw - overlay overlay rw\n"
        f"2 1 0:2 / {real} rw shared:1 - ext4 /dev/a rw\n"
        f"3 1 0:3 / {real}/my\\040mount rw - fuse.s3fs s3fs rw\n"
        f"4 1 0:4 / {real}/my\\040mount/in rw - tmpfs tmpfs rw\n"
        f"5 1 0:5 / {real}/my\\040mount/in rw - nfs4 server:/ rw\n"
    )
    assert file_system(Path("/elsewhere"), mounts) == "overlay"
    assert file_system(tmp_path / "x", mounts) == "ext4"
    assert file_system(tmp_path / "my mount" / "x", mounts) == "fuse.s3fs"
    assert file_system(tmp_path / "my mountain", mounts) == "ext4"
    assert file_system(tmp_path / "my mount" / "in", mounts) == "nfs4"
    assert file_system(tmp_path, tmp_path / "none") == ""
