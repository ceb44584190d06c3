"""Measure what a small file costs beside its model: CPU seconds of whole runs, beside a bare pool that does the same.

    python -m bench.small_files [--files 2000] [--rounds 3] [--engines local ray]

PNG files of 256 x 256, x2, written as PNG, durably by all. Two models: a program that doubles pixels in less than a
millisecond, and the smallest network there is. Each is run with all files and with a twentieth of them: the difference
is what a file costs, the rest is start-up. All take turns, round by round; the numbers are medians.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from bench.cpu_seconds import spend
from bench.models import free_model, smallest_model
from bench.report import save
from pipeline.cluster.environment import WORKER_ENVIRONMENT

BARE = "bare pool"
# Of the bare pool's cost of a file to the engine's.
TARGETS = {
    ("free", "local"): 0.6,
    ("free", "ray"): 0.25,
    ("smallest", "local"): 0.85,
    ("smallest", "ray"): 0.75,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="*", default=["local", "ray"])
    parser.add_argument("--models", nargs="*", default=["free", "smallest"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        folder = Path(name)
        few = max(2, options.files // 20)
        for count in (few, options.files):
            small_files(folder / f"in{count}", count)
        models = {
            "free": free_model(folder / "free.pt"),
            "smallest": smallest_model(folder / "smallest.safetensors"),
        }
        rows = [
            row
            for model in options.models
            for row in measure(folder, model, models[model], few, options.files, options)
        ]
    save("small_files", {"files": options.files, "rounds": options.rounds, "rows": rows})
    for row in rows:
        target = f" (target: {row['target']:g})" if "target" in row else ""
        ratio = f"  bare / this, a file: {row['ratio']:.2f}{target}" if "ratio" in row else ""
        print(
            f"{row['model']:9} {row['by']:10} {row['ms_a_file']:7.1f} ms a file, {row['start_up']:5.1f} s of start-up"
            f"{ratio}"
        )


def measure(
    folder: Path, model: str, reference: str, few: int, many: int, options: argparse.Namespace
) -> list[dict]:
    """Return a row for the bare pool and for each engine, in medians over rounds in which they take turns."""
    spent: dict[str, list[dict[str, float]]] = {by: [] for by in (BARE, *options.engines)}
    for number in range(options.rounds):
        for by, found in spent.items():
            cpu = {
                count: seconds(
                    folder / f"in{count}", folder / f"{model}-{by}-{number}-{count}", reference, by
                )
                for count in (few, many)
            }
            a_file = (cpu[many] - cpu[few]) / (many - few)
            found.append({"ms_a_file": 1000 * a_file, "start_up": cpu[few] - few * a_file})
    rows = [
        {"model": model, "by": by} | {name: round(median(one[name] for one in found), 2) for name in found[0]}
        for by, found in spent.items()
    ]
    for row in rows[1:]:
        row["ratio"] = round(rows[0]["ms_a_file"] / row["ms_a_file"], 3)
        row["target"] = TARGETS[model, row["by"]]
    return rows


def seconds(source: Path, destination: Path, model: str, by: str) -> float:
    """Return the CPU seconds of all processes of a run."""
    given = [str(source), str(destination), "--model", model]
    if by == BARE:
        return spend([sys.executable, "-m", "bench.bare_loop", *given], os.environ | WORKER_ENVIRONMENT).cpu
    spent = spend([sys.executable, "-m", "jobs.cli", "upscale", *given, "--engine", by, "--json"])
    summary = json.loads(spent.stdout.splitlines()[-1])
    if summary["failed"] or not summary["accounted"]:
        raise SystemExit(f"the run failed: {summary}")
    return spent.cpu


def small_files(folder: Path, count: int) -> None:
    """Write PNG crops of 256 x 256 from real photos."""
    import skimage.data

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    photos = [np.asarray(getattr(skimage.data, name)()) for name in ("astronaut", "coffee", "retina")]
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (int(rng.integers(0, side - 255)) for side in photo.shape[:2])
        crop = photo[top : top + 256, left : left + 256]
        Image.fromarray(crop).save(folder / f"{number:05}.png", compress_level=1)


if __name__ == "__main__":
    main()
