"""`imgtx generate` with a pipeline of diffusers, killed while it makes images and started again."""

import importlib.util
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

import imgtx
from imgtx.codecs import decode
from imgtx.models.references import read_info
from imgtx.models.sidecar import write_sidecar
from tests.support.archive import assert_sound, look
from tests.support.tiny_pipelines import save_pipeline

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed"),
    # `WITHIN` reports what hangs, with its output.
    pytest.mark.timeout(2400),
]

COUNT = 40
# Seconds after which a run counts as hanging.
WITHIN = 900.0


def test_a_killed_run_resumes_and_gives_the_same_pictures(tmp_path: Path):
    folder, out = save_pipeline("flux", tmp_path / "flux"), tmp_path / "out"
    # As a probe leaves it: a run is then planned without diffusers.
    info, digest = read_info(folder)
    write_sidecar(folder, digest, info, {})
    # Steps differ, so that few rows share a call, and a kill finds some done and some not.
    rows = [
        {"id": f"{n:02}", "prompt": "dog " * (1 + n % 5), "seed": n, "steps": 2 + n % 7} for n in range(COUNT)
    ]
    table = tmp_path / "prompts.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["generate", str(table), str(out), "--model", f"diffusers:{folder}", "--key", "id"]
    arguments += ["--size", "64x64", "--engine", "local", "--workers", "1", "--gpus", "0"]

    def start() -> subprocess.Popen:
        with (tmp_path / "log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", *arguments],
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    killed = start()
    deadline = time.monotonic() + WITHIN
    while killed.poll() is None and not list(out.glob("images/*.png")):
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)
    family = psutil.Process(killed.pid).children(recursive=True) if killed.poll() is None else []
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    psutil.wait_procs(family, timeout=120)
    before = look(str(out))
    assert 0 < len(before.files) < COUNT
    resumed = start()
    assert resumed.wait(WITHIN) == 0, (tmp_path / "log").read_text()
    found = look(str(out))
    assert_sound(found)
    assert {row["status"] for row in found.rows.values()} == {"written"}
    assert len(found.rows) == COUNT
    generator = imgtx.load(folder, device="cpu")
    for row in rows[::8]:
        made = decode((out / f"images/{row['id']}.png").read_bytes(), max_pixels=10**6).pixels
        alone = generator(row["prompt"], seed=row["seed"], steps=row["steps"], width=64, height=64)
        assert np.abs(made.astype(int) - alone).max() <= 1, row
