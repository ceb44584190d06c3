"""Images from a table of prompts: the same pixels on one process and on three that are killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from imgtx.codecs import decode
from jobs.run.driver import run
from jobs.run.tally import Summary, Tally
from pipeline.spec import RunSpec
from tests.support.archive import Destination, assert_sound, look
from tests.support.prompt_models import save_tiny_prompt_model

pytestmark = pytest.mark.timeout(1200)

ROWS = [
    {
        "id": f"row{n}",
        "prompt": f"a {'red' if n % 2 else 'blue'} star, number {n}",
        "seed": n,
        "steps": 3 + n % 2,
    }
    for n in range(24)
]


def ignore(tally: Tally) -> None:
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_prompt_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "prompts.jsonl", ROWS)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def generate(table: Path, out: Path, model: str, engine: str, workers: int) -> Summary:
    settings = {"key": "id"}
    spec = RunSpec(
        str(table), str(out), "text-to-image", model, settings, "png", engine=engine, workers=workers
    )
    return run(spec, ignore)


def pixels(out: Path) -> dict[str, np.ndarray]:
    found: Destination = look(str(out))
    assert_sound(found)
    files = {key: (out / "images" / row["output"]).read_bytes() for key, row in found.rows.items()}
    return {key: decode(data, max_pixels=10**6).pixels.astype(int) for key, data in files.items()}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    assert max(np.abs(one[key] - other[key]).max() for key in one) <= 1


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
