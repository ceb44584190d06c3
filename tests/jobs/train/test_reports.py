"""What the driver makes of its workers' lines: images left out are counted once, and what no restart cures ends it."""

from typing import Any

import pytest

from imgtx.errors import ImgtxError, RunInterruptedError, UsageError
from imgtx.training.data.left_out import LeftOut
from jobs.train.reports import NAMED, Relay
from jobs.train.restarts import Restarts
from pipeline.storage.store import open_store


@pytest.fixture
def reported() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def relay(tmp_path, reported) -> Relay:
    return Relay(reported.append, Restarts(open_store(str(tmp_path))), LeftOut())


def left_out(name: str) -> dict[str, str]:
    return {"left_out": name, "reason": "truncated", "message": f"{name} cannot be trained on"}


def test_images_that_several_workers_leave_out_are_counted_once_and_some_are_named(relay, reported, caplog):
    relay([{"step": 50}, left_out("train/a.png"), left_out("train/a.png"), {"step": 100}])
    relay([left_out(f"train/{number}.png") for number in range(20)])
    relay([{"step": 150, "left_out": 1}])
    assert reported == [{"step": 50}, {"step": 100, "left_out": 1}, {"step": 150, "left_out": 21}]
    assert sum(message.startswith("left out: ") for message in caplog.messages) == NAMED
    assert caplog.messages[-1] == "more images are left out: the log counts them (left_out)"


def test_a_start_after_the_first_is_said(relay, caplog):
    relay([{"began": ""}])
    assert not caplog.messages
    relay([{"began": ""}, {"began": "bucket/tiny/checkpoint_1/"}])
    assert caplog.messages == [
        "the workers started again, from the beginning",
        "the workers started again, from checkpoint_1",
    ]


def test_what_no_restart_can_cure_ends_the_training_at_once(relay):
    with pytest.raises(UsageError, match="none of the 3 images"):
        relay([{"refused": "none of the 3 images of x can be used"}])
    with pytest.raises(ImgtxError, match="the loss is nan"):
        relay([{"stopped": "the loss is nan"}])


def test_a_training_that_never_reached_a_checkpoint_does_not_name_one(relay):
    relay([{"failed": "OSError: the disk is full"}])
    with pytest.raises(RunInterruptedError, match=r"disk is full.*it had reached no checkpoint"):
        relay([{"began": ""}] * 5)
    with pytest.raises(RunInterruptedError, match=r"disk is full.*its checkpoints are at"):
        relay([{"began": "checkpoint_1"}] * 5)
