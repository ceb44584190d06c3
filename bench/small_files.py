"""Measure what a small file costs beside its model: CPU seconds of whole runs, beside a bare pool that does the same.

    python -m bench.small_files [--files 2000] [--rounds 3] [--by local ray naive vips] [--models free smallest]

PNG files of 256 x 256, x2, written as PNG. Two models: a program that doubles pixels in less than a millisecond, and
the smallest network there is; `--models sr-x2` takes a packaged one. Each is run with all files and with a twentieth of
them: the difference is what a file costs, the rest is start-up. All take turns, round by round; numbers are medians.
Each model is a result of its own, `small_files_free.json`.

Beside the engines: `naive`, the script of Ray's documentation (`bench.naive_ray`, which writes PNG as Pillow does, not
durably), and with the free model `vips` (libvips doubles the pixels, `bench.vips_pool`) and `img2dataset` (its resizer,
`bench.img2dataset_pool`, with `--img2dataset PYTHON` of an environment that has it). Ray's own processes count.
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
# They double pixels by themselves.
WITHOUT_MODEL = ("vips", "img2dataset")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--by", nargs="*", default=["local", "ray", "naive", "vips"])
    parser.add_argument("--models", nargs="*", default=["free", "smallest"])
    parser.add_argument("--img2dataset", default="", metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        folder = Path(name)
        few = max(2, options.files // 20)
        for count in (few, options.files):
            small_files(folder / f"in{count}", count)
        for model in options.models:
            rows = measure(folder, model, few, options)
            values = {"files": options.files, "rounds": options.rounds, "model": model, "rows": rows}
            save(f"small_files_{model}", values)
            for row in rows:
                target = f" (target: {row['target']:g})" if "target" in row else ""
                print(
                    f"{model:9} {row['by']:12} {row['ms_a_file']:7.1f} ms a file, {row['start_up']:5.1f} s of start-up"
                    f"  bare / this, a file: {row['ratio']:.2f}{target}",
                    flush=True,
                )


def measure(folder: Path, model: str, few: int, options: argparse.Namespace) -> list[dict]:
    """Return a row for the bare pool and for each other, in medians over rounds in which they take turns."""
    make = {"free": free_model, "smallest": smallest_model}.get(model)
    reference = (
        make(folder / (f"{model}.pt" if model == "free" else f"{model}.safetensors")) if make else model
    )
    without_model = [by for by in (*options.by, "img2dataset") if by in WITHOUT_MODEL]
    peers = [by for by in options.by if by not in WITHOUT_MODEL]
    if model == "free":
        peers += [by for by in without_model if by != "img2dataset" or options.img2dataset]
    spent: dict[str, list[dict[str, float]]] = {by: [] for by in (BARE, *peers)}
    for number in range(options.rounds):
        for by, found in spent.items():
            cpu = {}
            for count in (few, options.files):
                destination = folder / f"{model}-{by}-{number}-{count}"
                given = [str(folder / f"in{count}"), str(destination)]
                cpu[count] = seconds(by, given, reference, options.img2dataset)
                written = sum(path.suffix == ".png" for path in destination.rglob("*"))
                if written != count:
                    raise SystemExit(f"{by} wrote {written} of {count} files")
            a_file = (cpu[options.files] - cpu[few]) / (options.files - few)
            found.append(
                {"ms_a_file": 1000 * a_file, "start_up": cpu[few] - few * a_file, "cpu": cpu[options.files]}
            )
    rows: list[dict] = [
        {"by": by} | {name: round(median(one[name] for one in found), 2) for name in found[0]}
        for by, found in spent.items()
    ]
    for row in rows:
        bare = zip(spent[BARE], spent[row["by"]], strict=True)
        row["ratio"] = round(median(one["ms_a_file"] / this["ms_a_file"] for one, this in bare), 3)
        if (model, row["by"]) in TARGETS:
            row["target"] = TARGETS[model, row["by"]]
    return rows


def seconds(by: str, given: list[str], model: str, img2dataset: str) -> float:
    """Return the CPU seconds of all processes of a run; given: source and destination."""
    own = os.environ | WORKER_ENVIRONMENT
    if by == BARE:
        return spend([sys.executable, "-m", "bench.bare_loop", *given, "--model", model], own).cpu
    if by == "naive":
        return spend([sys.executable, "-m", "bench.naive_ray", *given, "--model", model]).cpu
    if by == "vips":
        return spend([sys.executable, "-m", "bench.vips_pool", *given], own).cpu
    if by == "img2dataset":
        return spend([img2dataset, "-m", "bench.img2dataset_pool", *given], own).cpu
    command = [
        sys.executable,
        "-m",
        "jobs.cli",
        "upscale",
        *given,
        "--model",
        model,
        "--engine",
        by,
        "--json",
    ]
    spent = spend(command)
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
