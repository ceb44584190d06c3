"""However a run of the local engine ends, no process of it is alive afterwards."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from imgtx.errors import BUG, DONE, INTERRUPTED
from pipeline.storage.store import open_store
from tests.support.alive import MARK, alive
from tests.support.archive import fill, save_tiny_model

pytestmark = pytest.mark.timeout(600)

WITHIN = 300.0
# Each worker stays in the middle of an image once the file `began` is there.
HOLDS = """
import pathlib, time
from pipeline.stages import decode

whole = decode.run_stage

def run_stage(stage, row, work):
    if stage == "decode":
        pathlib.Path({began!r}).touch()
        time.sleep(3600)
    return whole(stage, row, work)

decode.run_stage = run_stage
"""
FAILS = """
from jobs.run.tally import Tally

def add(self, outcomes):
    raise RuntimeError("a bug of the driver")

Tally.add = add
"""


def wait_until(condition) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("success", DONE),
        ("error", BUG),
        (signal.SIGINT, INTERRUPTED),
        (signal.SIGTERM, INTERRUPTED),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_no_process_of_a_run_is_alive_after_its_end(how: str | signal.Signals, code: int, tmp_path: Path):
    fill(open_store(str(tmp_path / "in")), 6)
    model, mark, began = save_tiny_model(tmp_path / "tiny.safetensors"), uuid.uuid4().hex, tmp_path / "began"
    # Python imports this module when it starts.
    module = FAILS if how == "error" else "" if how == "success" else HOLDS.format(began=str(began))
    (tmp_path / "sitecustomize.py").write_text(module)
    paths = os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)])
    command = ["upscale", "in", "out", "--model", model, "--engine", "local", "--workers", "2"]
    run = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths, MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    if isinstance(how, signal.Signals):
        wait_until(began.exists)
        # The driver, the process that workers are forked from, and two of these.
        wait_until(lambda: len(alive(mark)) == 4)
        run.send_signal(how)
    assert run.wait(WITHIN) == code
    if how == signal.SIGKILL:
        wait_until(lambda: not alive(mark))
    assert alive(mark) == []
