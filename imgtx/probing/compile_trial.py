"""Measure whether torch.compile pays for a model: seconds and exactness, in a process of its own with a time limit.

measure   tries it
judged    what follows for the model's info
"""

import contextlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from imgtx.errors import ImgtxError
from imgtx.files import write_atomically
from imgtx.inference.compiled import Compiled, alone, cache_folder, in_one_line
from imgtx.inference.tiling import largest_tile, smallest_tile
from imgtx.models.info import ModelInfo
from imgtx.probing.precisions import EXACT_DB, LAYOUT_LEVELS, ROUNDS, WORTH, clock, decibels, run_once

# Pixels: larger tiles compute less overlap, and fit fewer images.
MAX_SIDE = 512


@dataclass(frozen=True)
class Trial:
    """What is measured: a model's `info` as a run would have it, and the seconds after which it is given up."""

    reference: str
    info: ModelInfo
    device: str
    limit: float


def side_to_compile(info: ModelInfo) -> int:
    """Return the side of the tiles of a run: the largest of the model's own up to MAX_SIDE, on its grid."""
    side = min(largest_tile(info), max(MAX_SIDE, smallest_tile(info)))
    return side // info.multiple * info.multiple


def measure(
    trial: Trial, photo: np.ndarray, environment: Mapping[str, str], watch: Callable[[float], None]
) -> dict[str, Any]:
    """Compile a model for `trial.info.compiled_tile` and measure it on `photo` of that size, (H, W, C) uint8.

    In a process with the `environment` of a run's actors and one thread as they have, because both decide what is
    compiled and how fast it is. `watch` is called with the seconds that have passed, about once a second. Returns what
    `_measured` does, or {"fails": why}.
    """
    with tempfile.TemporaryDirectory(prefix="imgtx-compile-") as name:
        folder = Path(name)
        np.save(folder / "photo.npy", photo)
        values = vars(trial) | {"info": trial.info.to_dict()}
        (folder / "trial.json").write_text(json.dumps(values), encoding="utf-8")
        command = [
            sys.executable,
            "-c",
            "from imgtx.probing.compile_trial import child; child()",
            str(folder),
        ]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                command,
                cwd=Path(__file__).parents[2],
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                # So that its compilers can be killed with it.
                start_new_session=True,
            )
        in_time = _ends(process, trial.limit, watch)
        found = folder / "found.json"
        if found.is_file():
            return json.loads(found.read_text(encoding="utf-8"))
        if not in_time:
            return {"fails": f"torch.compile was given up after {trial.limit:g} s"}
        lines = (folder / "log").read_text(errors="replace").strip().splitlines() or ["no output"]
        return {"fails": f"torch.compile ended with {process.returncode} ({lines[-1][:200]})"}


def _ends(process: subprocess.Popen, limit: float, watch: Callable[[float], None]) -> bool:
    """Return whether the process ends within `limit` seconds; it is killed then, and when this is interrupted."""
    started = time.monotonic()
    try:
        while process.poll() is None and (passed := time.monotonic() - started) < limit:
            watch(passed)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(1.0, limit - passed))
        return process.poll() is not None
    finally:
        # Its group may still contain compilers when the process has ended.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def child() -> None:
    """Run what `measure` starts: read the trial from the folder in argv, write found.json there."""
    folder = Path(sys.argv[1])
    values = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
    trial = Trial(**values | {"info": ModelInfo.from_dict(values["info"])})
    try:
        from imgtx.models.references import load_model

        found = _measured(trial, load_model(trial.reference, trial.info), np.load(folder / "photo.npy"))
    except (ImgtxError, RuntimeError, MemoryError) as error:
        found = {"fails": in_one_line(error.__cause__ or error)}
    write_atomically(folder / "found.json", json.dumps(found, allow_nan=False), durable=False)


@torch.inference_mode()
def _measured(trial: Trial, model: Any, photo: np.ndarray) -> dict[str, Any]:
    """Measure seconds of compiling and per megapixel, beside the model as it is, in its info's precision and layout.

    Of a CPU processor time counts, with that of the compilers: the machine may have other work. `again_seconds` is
    what an actor waits that finds the work done. `db` is against the same precision, `exact_db` against float32.
    """
    info, device = trial.info, torch.device(trial.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    layout = torch.channels_last if info.channels_last else torch.contiguous_format
    model.to(device).eval().to(memory_format=layout)
    pixels = torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1)))[None]
    tile = (pixels.to(device).float() / 255).contiguous(memory_format=layout)
    plain, exact = run_once(model, tile, info.fast), run_once(model, tile, "float32")
    with alone(cache_folder(model.digest)):
        shutil.rmtree(cache_folder(model.digest), ignore_errors=True)
    compiled = Compiled(model)
    clocked, worked = time.monotonic(), _worked()
    output = run_once(compiled, tile, info.fast)
    clocked, worked = time.monotonic() - clocked, _worked() - worked
    timer = time.process_time if device.type == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {"plain": [], "compiled": []}
    for _ in range(ROUNDS):
        times["plain"].append(clock(lambda: run_once(model, tile, info.fast), device, timer))
        times["compiled"].append(clock(lambda: run_once(compiled, tile, info.fast), device, timer))
    torch.compiler.reset()
    again = time.monotonic()
    run_once(Compiled(model), tile, info.fast)
    again = time.monotonic() - again
    megapixels = info.compiled_tile**2 / 1e6
    eager, fast = (median(seconds) / megapixels for seconds in times.values())
    return {
        "tile": info.compiled_tile,
        "precision": info.fast,
        "compile_seconds": round(clocked, 1),
        "compile_work_seconds": round(worked, 1),
        "again_seconds": round(again, 1),
        "eager_seconds_per_megapixel": round(eager, 3),
        "seconds_per_megapixel": round(fast, 3),
        "levels": round(float((output - plain).abs().max()) * 255, 4),
        "db": decibels(output, plain),
        "exact_db": decibels(output, exact),
        "pays_from_megapixels": round(worked / (eager - fast), 1) if eager > fast else None,
    }


def _worked() -> float:
    """Return processor seconds of this process and of those that it waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def judged(info: ModelInfo, found: Mapping[str, Any]) -> ModelInfo:
    """Return `info` with what `measure` found in it: the tile to compile for, or why not."""
    why, gain = found.get("fails", ""), 0.0
    if not why:
        gain = round(found["eager_seconds_per_megapixel"] / found["seconds_per_megapixel"], 2)
        if info.fast == "float32" and found["levels"] > LAYOUT_LEVELS:
            why = f"it moves a pixel by {found['levels']} of 255 levels (limit: {LAYOUT_LEVELS})"
        elif not math.isfinite(found["exact_db"]) or found["exact_db"] < EXACT_DB:
            why = f"it is {found['exact_db']} dB off float32 (target: {EXACT_DB:g})"
        elif gain < WORTH:
            why = f"it is {gain} times as fast (target: {WORTH})"
    if why:
        return replace(info, compiled_tile=0, compiled_gain=0.0, not_compiled=why)
    return replace(info, compiled_tile=found["tile"], compiled_gain=gain, not_compiled="")
