"""A nightly run stopped after any of its stages, before that is recorded, ends like one without faults."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from imgtx.errors import LeaseHeldError, RunInterruptedError
from imgtx.models.weights import load_model
from jobs.nightly import loop as nightly
from jobs.nightly import stages as night_stages
from jobs.nightly.context import training_spec
from jobs.nightly.stages import STAGES
from pipeline.ledger.lease import Lease
from pipeline.models.resolve import local_model
from tests.support.nightly import World

DATE = "2026-11-23"


class Killed(BaseException):
    """Stands in for SIGKILL: the code under test does not catch it."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def world(tmp_path: Path, name: str) -> World:
    return World(str(tmp_path / name), tmp_path / f"{name}-work")


def killed_behind(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process end when this stage has next done its work, before that is recorded."""
    work = STAGES[stage]

    def doomed(*arguments: Any) -> dict[str, Any]:
        work(*arguments)
        monkeypatch.setitem(STAGES, stage, work)
        raise Killed(stage)

    monkeypatch.setitem(STAGES, stage, doomed)


def parameters(world: World) -> dict[str, torch.Tensor]:
    return load_model(local_model(f"{world.root}/models/tiny@latest")).network.state_dict()


@pytest.fixture
def undisturbed(tmp_path: Path) -> World:
    world_ = world(tmp_path, "undisturbed")
    assert world_.run(DATE)["stages"]["gate"]["promoted"] == "0002"
    return world_


def assert_equal(one: World, other: World) -> None:
    ours, theirs = parameters(one), parameters(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert [p.below for p in one.models.history("tiny")] == [p.below for p in other.models.history("tiny")]


def test_a_kill_after_any_stage_changes_nothing(
    tmp_path: Path, undisturbed: World, monkeypatch: pytest.MonkeyPatch
):
    disturbed = world(tmp_path, "disturbed")
    for number, stage in enumerate(STAGES):
        killed_behind(stage, monkeypatch)
        with pytest.raises(Killed, match=stage):
            disturbed.run(DATE)
        state = nightly.read_state(disturbed.night(DATE))
        assert list(state["stages"]) == list(STAGES)[:number], "what was recorded stays, in order"
    state = disturbed.run(DATE)
    assert state["finished"]
    assert state["stages"]["gate"]["promoted"] == disturbed.latest
    assert_equal(disturbed, undisturbed)
    assert disturbed.models.numbers("tiny") == ["0001", "0002"], "published twice is one version"
    assert len(disturbed.models.history("tiny")) == 2, "promoted twice is one move"
    assert not (disturbed.work / DATE).exists()


def test_unpublished_weights_are_trained_again_on_another_machine(
    tmp_path: Path, undisturbed: World, monkeypatch: pytest.MonkeyPatch
):
    moved = world(tmp_path, "moved")
    monkeypatch.setattr(type(moved.models), "add", lambda *_: pytest.fail("published"))
    with pytest.raises(pytest.fail.Exception, match="published"):
        moved.run(DATE)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    moved.work = tmp_path / "another machine"
    assert moved.run(DATE)["stages"]["gate"]["promoted"] == "0002"
    assert_equal(moved, undisturbed)


def test_a_finished_run_is_not_repeated(undisturbed: World, monkeypatch: pytest.MonkeyPatch):
    before = (Path(undisturbed.root) / "nights" / "nights" / DATE / "state.json").read_bytes()
    for stage in STAGES:
        monkeypatch.setitem(STAGES, stage, lambda *_: pytest.fail("ran again"))
    monkeypatch.setattr(nightly, "check_nightly_run", lambda _: pytest.fail("asked for more than the state"))
    state = undisturbed.run(DATE)
    assert state == json.loads(before)
    assert "done at" in nightly.summary(state, before=True)


def test_both_versions_are_evaluated_on_the_trained_damage(undisturbed: World):
    """One step changes nothing: the scores could differ only if measured on different damage."""
    undisturbed.add_images(1)
    archive = undisturbed.spec.train | {"degradation": "archive", "steps": 1, "peak_lr": 1e-6}
    found = undisturbed.run("2026-11-24", replace(undisturbed.spec, train=archive))["stages"]["evaluate"]
    assert found["degradation"] == "archive"
    assert abs(found["candidate"]["valid"] - found["current"]["valid"]) < 0.05
    clean = nightly.read_state(undisturbed.night(DATE))["stages"]["evaluate"]
    assert clean["degradation"] == "bicubic"
    assert clean["candidate"]["valid"] - found["current"]["valid"] > 0.5, (
        "damage costs the same weights decibels"
    )
    # What was trained on damage continues so.
    plain = undisturbed.night("2026-11-25")
    assert training_spec(plain, "0003").degradation == "archive"
    asked = replace(undisturbed.spec, train=undisturbed.spec.train | {"degradation": "bicubic"})
    assert training_spec(undisturbed.night("2026-11-25", asked), "0003").degradation == "bicubic"


def test_only_one_process_runs_per_date(undisturbed: World):
    night = undisturbed.night("2026-11-24")
    with Lease(night.record, "another"), pytest.raises(LeaseHeldError, match="held by run another"):
        nightly.run_nightly(night)
    assert nightly.read_state(night)["stages"] == {}


def test_a_run_that_lost_its_lease_records_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lost = world(tmp_path, "lost")
    monkeypatch.setattr(Lease, "lost", property(lambda self: True))
    with pytest.raises(RunInterruptedError, match="took over this date"):
        lost.run(DATE)
    assert nightly.read_state(lost.night(DATE))["stages"] == {}


def test_a_new_latest_version_during_a_run_is_evaluated_again(
    undisturbed: World, monkeypatch: pytest.MonkeyPatch
):
    """Another run was faster: the gate must not use a version that the store no longer has."""
    undisturbed.add_images(3)
    measured = STAGES["evaluate"]

    def moved_behind(*arguments: Any) -> dict[str, Any]:
        found = measured(*arguments)
        assert undisturbed.models.rollback("tiny").version == "0001"
        return found

    monkeypatch.setitem(STAGES, "evaluate", moved_behind)
    # This is enough to pass against 0001, but not against 0002.
    strict = replace(undisturbed.spec, gate={"better_by": 1.0})
    stages = undisturbed.run("2026-11-24", strict)["stages"]
    assert (stages["plan"]["begin"], stages["evaluate"]["against"]) == ("0002", "0002")
    assert (stages["gate"]["against"], stages["gate"]["promoted"]) == ("0001", "0003")


def test_a_latest_version_that_keeps_changing_ends_the_run_in_one_line(
    undisturbed: World, monkeypatch: pytest.MonkeyPatch
):
    undisturbed.add_images(1)
    monkeypatch.setattr(type(undisturbed.models), "promote", lambda *_, **__: None)
    monkeypatch.setattr(night_stages, "MOVES", 2)
    with pytest.raises(night_stages.ModelError, match="moved 2 times during the gate: run the same command"):
        undisturbed.run("2026-11-24", replace(undisturbed.spec, gate={"better_by": -9.0, "worse_by": 9.0}))
