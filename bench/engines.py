"""What a run costs on each engine: CPU seconds of all its processes, Ray's included.

    python -m bench.engines [--rounds 3]

The engines take turns. Three sizes: one image of 16 x 16; the photos of examples/, as `make demo`; small PNG files with
the smallest model there is, where all that is not pixels shows.
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
from bench.models import smallest_model
from bench.report import save
from bench.small_files import small_files

ENGINES = ("local", "ray")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument(
        "--only", choices=["one", "demo", "small"], nargs="*", default=["one", "demo", "small"]
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        folder = Path(name)
        (folder / "one").mkdir()
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "one" / "a.png")
        small_files(folder / "small", options.files)
        model = smallest_model(folder / "smallest.safetensors")
        works = {
            "one": ("one image of 16 x 16", folder / "one", "sr-x2"),
            "demo": ("make demo", EXAMPLES, "sr-x2"),
            "small": (f"{options.files} files of 256 x 256, smallest model", folder / "small", model),
        }
        rows = [measure(folder, *works[work], rounds=options.rounds) for work in options.only]
    save("engines", {"rounds": options.rounds, "load": os.getloadavg()[0], "rows": rows})
    print(f"{'':44}{'CPU s':>8}{'of it model':>13}{'wall s':>8}{'MB':>7}")
    for row in rows:
        for engine in ENGINES:
            found = row[engine]
            numbers = (
                f"{found['cpu']:8.1f}{found['model']:13.1f}{found['wall']:8.1f}{found['megabytes']:7.0f}"
            )
            print(f"{row['work'] + ', ' + engine:44}{numbers}")


def measure(folder: Path, work: str, source: Path, model: str, *, rounds: int) -> dict:
    """Medians over rounds in which the engines take turns."""
    found: dict[str, list[dict]] = {engine: [] for engine in ENGINES}
    for number in range(rounds):
        for engine in ENGINES:
            out = folder / f"{source.name}-{engine}-{number}"
            found[engine].append(run(source, out, "--model", model, "--engine", engine))
    medians = {
        engine: {name: round(median(one[name] for one in runs), 2) for name in runs[0]}
        for engine, runs in found.items()
    }
    return {"work": work} | medians


def run(source: Path, destination: Path, *options: str) -> dict:
    command = [sys.executable, "-m", "jobs.cli", "upscale", str(source), str(destination), "--json", *options]
    spent = spend(command)
    summary = json.loads(spent.stdout.splitlines()[-1])
    if summary["failed"] or not summary["accounted"]:
        raise SystemExit(f"the run did not go well: {summary}")
    model = summary["stage_seconds"]["transform"]
    return {"cpu": spent.cpu, "wall": spent.wall, "model": model, "megabytes": spent.megabytes}


if __name__ == "__main__":
    main()
