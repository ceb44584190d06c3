"""Output that cannot be written: the run goes on, and its exit code says what became of the images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.archive import look, save_tiny_model
from tests.support.zoo import photo, saved


@pytest.fixture
def command(tmp_path: Path) -> str:
    """Return a command line, for a shell, of a run over three images into `out`."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.png").write_bytes(saved(photo(20 + number, 24)))
    model = save_tiny_model(tmp_path / "tiny.safetensors")
    return f"{sys.executable} -m jobs.cli upscale {tmp_path / 'in'} {tmp_path / 'out'} --model {model} --engine local"


@pytest.mark.parametrize(
    "streams",
    [
        "2>&-",
        ">&-",
        "<&- >&- 2>&-",
        "> /dev/full",
        "2> /dev/full",
        "> /dev/full 2>&1",
        "--json > /dev/full",
        "2>&1 | (read line; exit 0)",
    ],
)
def test_a_run_does_without_its_output(command: str, streams: str, tmp_path: Path):
    script = f"set -o pipefail; {command} {streams}"
    assert subprocess.run(["bash", "-c", script], capture_output=True, check=False).returncode == 0
    assert len(look(str(tmp_path / "out")).outputs) == 3
    (summary,) = (tmp_path / "out" / "runs").glob("*/summary.json")
    assert json.loads(summary.read_text())["state"] == "done"


def test_failed_images_still_decide_the_exit_code(command: str, tmp_path: Path):
    (tmp_path / "in" / "bad.png").write_bytes(b"none")
    script = f"{command} > /dev/full 2>&1"
    assert subprocess.run(["bash", "-c", script], check=False).returncode == 3
    assert os.path.exists(tmp_path / "out" / "images")
