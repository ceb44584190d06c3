"""Three nightly runs on S3, down to the outputs: one better, one that the gate refuses, one killed while training."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jobs.nightly import loop as nightly
from pipeline.ledger.ledger import Ledger
from pipeline.models.store import ModelStore
from pipeline.storage.store import open_store
from tests.support.archive import assert_sound, look
from tests.support.nightly import World, as_toml

# A minute of work, several on a busy machine.
pytestmark = pytest.mark.timeout(900)

# Killed after its first checkpoint, which is not its last.
LONG = {"steps": 500, "checkpoint_minutes": 0.005}
# Seconds.
WITHIN = 240.0
# `imgtx` whose training stops after its first checkpoint that follows a line of its log, and waits to be killed: on a
# slow machine checkpoints come before.
WAITING_AFTER_CHECKPOINT = """
import threading
from jobs.cli import main
from imgtx.training.loop import REPORT_STEPS
from imgtx.training.state import Training

save = Training.save

def save_and_wait(self):
    if self.progress.step >= REPORT_STEPS:
        save(self)
        threading.Event().wait()

Training.save = save_and_wait
main()
"""


def made_by(world: World, number: str) -> set[str]:
    """Return the keys whose current output was made by the version, by the recipe of the run that wrote them."""
    rows = Ledger(open_store(f"{world.root}/out")).current(["key", "run"]).to_pylist()
    runs = {row["run"] for row in rows}
    out = open_store(f"{world.root}/out")
    models = {run: json.loads(out.read(f"runs/{run}/spec.json"))["model"] for run in runs}
    return {row["key"] for row in rows if models[row["run"]].endswith(f"/tiny@{number}")}


def kill_amid_training(world: World, date: str, spec: Path) -> tuple[int, int]:
    """Kill `imgtx nightly` once it has a checkpoint; return its step and the lines of the log so far."""
    command = [
        sys.executable,
        "-c",
        WAITING_AFTER_CHECKPOINT,
        "nightly",
        str(spec),
        "--date",
        date,
        "--folder",
        str(world.work),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    folder, deadline = world.work / date / "training", time.monotonic() + WITHIN
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    step = torch.load(folder / "checkpoint.pt", weights_only=True)["progress"]["step"]
    return step, len((folder / "log.jsonl").read_text().splitlines())


def test_three_nightly_runs_improve_the_model(bucket: str, tmp_path: Path):
    upscale = {"destination": f"{bucket}/out", "gpus": 0, "workers": 1}
    world = World(bucket, tmp_path / "work", upscale=upscale)

    better = world.run("2026-11-23")["stages"]
    assert better["plan"] == {"begin": "0001", "new": 6, "taken": 6, "replayed": 0}
    assert better["evaluate"]["candidate"]["valid"] > better["evaluate"]["current"]["valid"]
    assert (better["gate"]["promoted"], world.latest) == ("0002", "0002")
    assert (better["upscale"]["written"], better["upscale"]["current"]) == (6, 0)

    world.add_images(3)
    wild = world.spec.train | {"peak_lr": 0.5}
    worse = world.run("2026-11-24", replace(world.spec, train=wild))["stages"]
    assert worse["plan"] == {"begin": "0002", "new": 3, "taken": 3, "replayed": 6}
    assert (worse["publish"]["version"], worse["gate"]["promoted"], world.latest) == ("0003", None, "0002")
    assert worse["gate"]["why"].startswith("refused: valid -")
    assert (worse["upscale"]["written"], worse["upscale"]["current"]) == (3, 6), (
        "what is new, and nothing stale"
    )

    world.add_images(3)
    gentle = world.spec.train | LONG | {"peak_lr": 2e-3}
    world.spec = replace(world.spec, train=gentle)
    spec = tmp_path / "night.toml"
    spec.write_text(as_toml(world.spec))
    step, lines = kill_amid_training(world, "2026-11-25", spec)
    assert 0 < step < LONG["steps"]
    assert list(nightly.read_state(world.night("2026-11-25"))["stages"]) == ["plan"]
    assert world.models.numbers("tiny") == ["0001", "0002", "0003"]

    resumed = world.run("2026-11-25")["stages"]
    assert resumed["plan"] == {"begin": "0002", "new": 3, "taken": 3, "replayed": 9}
    log = ModelStore(open_store(f"{bucket}/models")).store.read("tiny/0004/log.jsonl").decode().splitlines()
    assert all(json.loads(line)["step"] > step for line in log[lines:]), "it must continue, not start over"
    assert (resumed["gate"]["promoted"], world.latest) == ("0004", "0004")
    assert (resumed["upscale"]["written"], resumed["upscale"]["current"]) == (12, 0), "all are stale, or new"
    assert made_by(world, "0004") == set(look(f"{bucket}/out").outputs)
    assert_sound(look(f"{bucket}/out"))

    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "nightly", str(spec), "--date", "2026-11-25"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2026-11-25: latest 0002 -> 0004: passed")
    assert done.stdout.endswith("nothing to do\n")
    assert [p.version for p in world.models.history("tiny")] == ["0001", "0002", "0004"]
