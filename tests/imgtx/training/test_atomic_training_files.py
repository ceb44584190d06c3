"""A training that ends while it writes a checkpoint or weights leaves the old file whole, and continues from it."""

import os
from pathlib import Path

import pytest
import torch

from imgtx.models import weights
from imgtx.models.weights import load_model
from imgtx.training import state as train_state
from imgtx.training.spec import TrainSpec
from imgtx.training.state import Training, write_weights

MODEL = {
    "dim": 16, "heads": 1, "window": 4, "encoder_blocks": 1, "decoder_blocks": 1,
    "detail_channels": 4, "detail_blocks": 1, "ffn_ratio": 1.0,
}  # fmt: skip
SPEC = TrainSpec("tiny", "x", "x", minutes=1, batch=2, crop=8, precision="float32", model=MODEL)


class Killed(BaseException):
    """Stands in for SIGKILL: the code under test does not catch it."""


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(SPEC, tmp_path)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the calls to the file system, in order."""
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("sync")
        sync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append(f"name {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    return done


def test_a_kill_during_a_checkpoint_leaves_the_previous_one(training, monkeypatch):
    training.progress.step = 7
    training.save()
    before = training.checkpoint.read_bytes()
    training.progress.step = 8

    def half(state: dict, part: Path) -> None:
        part.write_bytes(before[: len(before) // 2])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(Killed):
            training.save()
    assert training.checkpoint.read_bytes() == before
    resumed = Training(SPEC, training.folder)
    assert resumed.progress.step == 7
    resumed.progress.step = 9
    # The half-written file does not interfere.
    resumed.save()
    assert Training(SPEC, training.folder).progress.step == 9


def test_a_kill_during_writing_weights_leaves_the_previous_file(training, monkeypatch):
    path = write_weights(training)
    before, write = path.read_bytes(), weights.save_file

    def half(tensors: dict, part: Path, *facts) -> None:
        write(tensors, part, *facts)
        os.truncate(part, len(before) // 2)
        raise Killed

    training.progress.step = 5
    with monkeypatch.context() as patch:
        patch.setattr(weights, "save_file", half)
        with pytest.raises(Killed):
            write_weights(training)
    assert path.read_bytes() == before
    assert load_model(path).info.training["steps"] == 0
    assert load_model(write_weights(training)).info.training["steps"] == 5


@pytest.mark.parametrize("write", [Training.save, train_state.write_weights], ids=["checkpoint", "weights"])
def test_bytes_are_synced_before_the_rename(training, steps, write):
    """Otherwise a power failure could keep the name and lose the bytes."""
    write(training)
    (named,) = [index for index, step in enumerate(steps) if step.startswith("name ")]
    assert steps[named - 1] == "sync"
