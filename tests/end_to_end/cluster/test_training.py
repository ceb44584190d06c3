"""Training while machines join and leave: one worker per machine, and the curve of an undisturbed training.

pytest tests/end_to_end/cluster/test_training.py -s
"""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imgtx.training.loop import run
from imgtx.training.spec import load_train_spec
from imgtx.training.state import Training
from jobs.train.images import Sources
from jobs.train.stream import Shard
from jobs.train.worker import worker_data
from pipeline.storage.store import Store, open_store
from tests.end_to_end.cluster.hosts import network
from tests.end_to_end.cluster.nodes import S3_PORT, WITHIN, Cluster
from tests.end_to_end.cluster.s3proxy import proxying
from tests.support.archive import TINY_NETWORK

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1200)]

STEPS = 12_000
SPEC = f"""
name = "tiny"
train = "s3://archive"
valid = "s3://archive"
steps = {STEPS}
batch = 4
crop = 8
peak_lr = 1e-4
precision = "float32"
valid_images = 2
validate_minutes = 60
checkpoint_minutes = 0.05
{TINY_NETWORK}"""


@dataclass
class TrainingOutput:
    """The log of a running `imgtx train`."""

    process: subprocess.Popen
    folder: Path
    said: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        log = self.folder / "log.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def wait_for(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the newest line once it satisfies the condition; the training must not end before."""
        deadline = time.monotonic() + WITHIN
        while not (lines := self.lines) or not what(lines[-1]):
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.1)
        return lines[-1]


@pytest.fixture
def cluster(archive, s3_server, tmp_path):
    with network() as net, proxying(net.listen(S3_PORT), s3_server.url) as proxy:
        made = Cluster(net, proxy, tmp_path)
        made.begin("head", cpus=0, head=True)
        made.wait("head")
        made.add("one", cpus=1)
        yield made


def test_the_number_of_workers_follows_the_machines(cluster: Cluster, tmp_path: Path):
    spec = tmp_path / "tiny.toml"
    spec.write_text(SPEC)
    folder, said = tmp_path / "folder", tmp_path / "said"
    elastic = ("--workers", "2", "--min-workers", "1", "--storage", "s3://models/training")
    began = time.monotonic()
    process = cluster.command("train", str(spec), "--folder", str(folder), *elastic, log=said)
    training = TrainingOutput(process, folder, said)
    root = open_store("s3://models/training/tiny")
    training.wait_for(lambda line: line["workers"] == 1)
    cluster.add("two", cpus=1)
    joined = time.monotonic()
    grown = training.wait_for(lambda line: line["workers"] == 2)
    print(f"\nused {time.monotonic() - joined:.0f} s after it joined, at step {grown['step']}")
    training.wait_for(lambda line: line["step"] >= grown["step"] + 500)
    cluster.remove("one")
    lost = time.monotonic()
    before = training.lines[-1]["step"]
    alone = training.wait_for(lambda line: line["workers"] == 1)
    print(f"alone {time.monotonic() - lost:.0f} s after the loss at step {before}: at step {alone['step']}")
    assert process.wait(2 * WITHIN) == 0, said.read_text()
    print(f"{time.monotonic() - began:.0f} s in all")
    # It resumed from a checkpoint.
    assert alone["step"] > 50

    expected = undisturbed(spec, root, tmp_path)
    losses = {line["step"]: line["loss"] for line in training.lines if "loss" in line}
    assert losses.keys() == expected.keys()
    assert all(losses[step] == pytest.approx(expected[step], rel=0.02) for step in expected)


def undisturbed(spec: Path, root: Store, folder: Path) -> dict[int, float]:
    """Return the losses by step of one process on the same crops."""
    lines: list[dict[str, Any]] = []
    loaded = load_train_spec(spec, folders=False)
    store = open_store(loaded.train)
    data = worker_data(loaded, root, Sources(store, store), Shard())
    run(Training(loaded, folder / "undisturbed"), data, lines.append)
    return {line["step"]: line["loss"] for line in lines if "loss" in line}
