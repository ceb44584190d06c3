"""However a run on a private Ray ends, none of its processes is alive soon afterwards, and its folder is gone."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from imgtx.errors import BUG, DONE, INTERRUPTED, UNREACHABLE
from pipeline.cluster.machine import PREFIX
from pipeline.storage.store import open_store
from tests.support.alive import MARK, alive
from tests.support.archive import fill

pytestmark = pytest.mark.timeout(3600)

WITHIN = 900.0
# Python imports these as `sitecustomize` when it starts, in the driver and in Ray's processes.
HOLDS = """
import pathlib, sys, time

def hold(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "to_tiles" and frame.f_code.co_filename.endswith("stages/decode.py"):
        pathlib.Path({began!r}).touch()
        time.sleep(3600)

if "default_worker.py" in " ".join(sys.orig_argv):
    sys.setprofile(hold)
"""
FAILS = """
import sys

if "jobs.cli" in sys.orig_argv:
    from jobs.run.tally import Tally

    def add(self, outcomes):
        raise RuntimeError("a bug of the driver")

    Tally.add = add
"""
DOES_NOT_START = """
import sys

if "jobs.cli" in sys.orig_argv:
    from pipeline.cluster import private

    def never(services, node):
        raise ConnectionError("planted")

    private._is_there = never
"""


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("success", DONE),
        ("error", BUG),
        ("no start", UNREACHABLE),
        (signal.SIGINT, INTERRUPTED),
        (signal.SIGTERM, INTERRUPTED),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_no_process_of_ray_is_alive_after_a_run(
    how: str | signal.Signals, code: int, model: str, tmp_path: Path
):
    fill(open_store(str(tmp_path / "in")), 4)
    mark, began = uuid.uuid4().hex, tmp_path / "began"
    modules = {"success": "", "error": FAILS, "no start": DOES_NOT_START}
    (tmp_path / "sitecustomize.py").write_text(modules.get(how, HOLDS.format(began=str(began))))
    paths = os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)])
    command = ["upscale", "in", "out", "--model", model, "--engine", "ray", "--workers", "1"]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *command],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": paths, MARK: mark},
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    said = (tmp_path / "log").read_text
    try:
        if isinstance(how, signal.Signals):
            wait_until(began.exists)
            run.send_signal(how)
        assert run.wait(WITHIN) == code, said()
    finally:
        # It is in a session of its own.
        run.kill()
    ended = time.monotonic()
    wait_until(lambda: not alive(mark))
    print(f"{how}: the last process of Ray ended {time.monotonic() - ended:.1f} s after the run")
    folders = [*Path("/tmp").glob(f"{PREFIX}{run.pid}-*")]
    # A killed driver removes nothing, and the logs of a failed start say why.
    assert bool(folders) == (how in ("no start", signal.SIGKILL))
    if how == "no start":
        assert f"its logs are in {folders[0]}" in said() or f"all logs are in {folders[0]}" in said()
        assert not (tmp_path / "out" / "runs").exists()
