"""Images from a table of prompts: the same pixels on one process and on three that are killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.prompt_models import save_tiny_prompt_model
from tests.support.prompt_runs import ROWS, assert_same, generate, pixels, write

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_prompt_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "prompts.jsonl", ROWS)


def test_the_local_engine_killed_and_resumed_makes_the_same_pictures(table: Path, model: str, tmp_path: Path):
    whole = generate(table, tmp_path / "one", model, "local", 1)
    assert (whole.written, whole.accounted) == (24, True)
    out = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "jobs.cli",
        "generate",
        str(table),
        str(out),
        "--model",
        model,
        "--key",
        "id",
    ]
    more = ["--engine", "local", "--workers", "3", "--gpus", "0", "--json"]
    process = subprocess.Popen(
        [*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("images/*.png")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=60)
    resumed = generate(table, out, model, "local", 3)
    assert (resumed.written + resumed.current, resumed.accounted) == (24, True)
    assert_same(pixels(tmp_path / "one"), pixels(out))
