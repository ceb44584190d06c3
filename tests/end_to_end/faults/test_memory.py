"""Too little memory, by a real limit: the kernel kills workers, and the run says so and ends, or goes on with less."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imgtx.errors import DONE, FAILURES
from pipeline.storage.store import open_store
from tests.support.archive import fill, look, save_tiny_model
from tests.support.memory_limit import limited
from tests.support.zoo import photo, saved

pytestmark = pytest.mark.timeout(1800)

# Python imports this module when it starts: an image of this name takes 600 MB.
HUNGRY = """
from pipeline.stages import decode

whole = decode.run_stage

def run_stage(stage, row, work):
    if stage == "decode" and "hungry" in row["key"]:
        b"x" * (600 << 20)
    return whole(stage, row, work)

decode.run_stage = run_stage
"""


def upscale(folder: Path, megabytes: int, *options: str, **variables: str) -> tuple[int, str, str]:
    """Run over `folder/in` under a limit of memory; return the exit code, stdout and stderr."""
    command = [
        "upscale",
        str(folder / "in"),
        str(folder / "out"),
        "--model",
        str(folder / "tiny.safetensors"),
    ]
    with limited(megabytes) as enter:
        done = subprocess.run(
            [sys.executable, "-m", "jobs.cli", *command, "--gpus", "0", *options],
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)} | variables,
            capture_output=True,
            text=True,
            preexec_fn=enter,
        )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny_model(tmp_path / "tiny.safetensors")
    fill(open_store(str(tmp_path / "in")), 8)
    (tmp_path / "sitecustomize.py").write_text(HUNGRY)
    return tmp_path


def with_hungry(folder: Path, count: int) -> dict[str, str]:
    """Add images that take more than there is; returns the variables with which they do."""
    for number in range(count):
        open_store(str(folder / "in")).write(f"0/hungry-{number}.png", saved(photo(20, 20)))
    return {"PYTHONPATH": os.pathsep.join([str(folder), *(path for path in sys.path if path)])}


@pytest.mark.parametrize(
    ("engine", "megabytes"), [("local", 120), pytest.param("ray", 700, marks=pytest.mark.nightly)]
)
def test_a_run_that_cannot_fit_ends_with_one_line(folder: Path, engine: str, megabytes: int):
    code, _, said = upscale(folder, megabytes, "--engine", engine)
    assert code == FAILURES, said
    last = said.splitlines()[-1]
    assert "too little memory: the kernel killed" in last
    assert f"{megabytes} MB that this container or job may use" in last
    assert "needs about" in last
    assert "stopped after 0 images, 8 pending" in last


def test_images_that_take_all_memory_are_recorded_and_others_survive(folder: Path):
    variables = with_hungry(folder, 2)
    code, said, errors = upscale(
        folder, 450, "--engine", "local", "--json", "--max-failed", "2", "--workers", "2", **variables
    )
    assert code == DONE, errors
    summary = json.loads(said.splitlines()[-1])
    assert summary["written"] == 8
    assert summary["reasons"] == {"worker_crash": 2}
    assert "continuing with 1 instead of 2" in errors
    rows = look(str(folder / "out")).rows
    message = rows["0/hungry-0.png"]["message"]
    assert "killed for memory" in message
    assert "of the 450 MB" in message


def test_a_run_whose_images_all_take_too_much_stops_after_a_few(folder: Path):
    shutil.rmtree(folder / "in")
    variables = with_hungry(folder, 20)
    code, _, said = upscale(folder, 450, "--engine", "local", **variables)
    assert code == FAILURES, said
    assert "too little memory" in said.splitlines()[-1]
    # Here nothing makes them hungry.
    again, _, said = upscale(folder, 4000, "--engine", "local")
    assert again == DONE, said


def test_a_run_whose_workers_all_crash_stops(folder: Path):
    """Of any other cause, such as a broken library: not each of thousands of images is tried three times."""
    shutil.rmtree(folder / "in")
    variables = with_hungry(folder, 80)
    crash = HUNGRY.replace('b"x" * (600 << 20)', f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    (folder / "sitecustomize.py").write_text(crash)
    code, _, said = upscale(folder, 4000, "--engine", "local", **variables)
    assert code == FAILURES, said
    assert "50 worker processes ended, and no image was finished" in said.splitlines()[-1]
