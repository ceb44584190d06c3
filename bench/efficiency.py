"""Measure which share of a bare loop's throughput the pipeline keeps: `imgtx upscale` against `bench.bare_loop`.

    python -m bench.efficiency [--megapixels 60] [--rounds 1]

Both read the same JPEG archive, run the same weights in as many processes as there are cores with the same allocator
settings, and write the same files; they take turns. Start-up is measured separately: for the bare loop until every
process has its model, for imgtx until Ray is up. The time in which imgtx's actors load their models and Ray shuts down
is included, so short archives look worse than long ones.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.photos import photo_archive
from bench.report import save
from pipeline.cluster.environment import WORKER_ENVIRONMENT

# Long sides of 0.3 to 1.8 megapixels. With larger images, the last one keeps one of two cores busy for a tenth of the
# whole time.
SIDES = (1536, 640, 1280, 768, 1024, 1152)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", default="sr-x2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        folder = Path(name)
        total = photo_archive(folder / "in", options.megapixels, sides=SIDES)
        images = len(list((folder / "in").iterdir()))
        rounds = [one_round(folder, number, options.model, total) for number in range(options.rounds)]
    values = {
        "model": options.model,
        "megapixels": round(total, 2),
        "images": images,
        "workers": os.cpu_count(),
        "rounds": rounds,
        "ratio": round(median(r["ratio"] for r in rounds), 4),
    }
    save("efficiency", values)
    for name in ("pipeline", "bare"):
        rate, start_up = (median(r[name][what] for r in rounds) for what in ("mp_per_second", "start_up"))
        print(f"{name:8} {rate:.4f} MP/s after {start_up:.1f} s of start-up")
    print(
        f"ratio    {values['ratio']:.3f} (target: >= 0.9): {images} images, {total:.0f} MP, {options.model}"
    )


def one_round(folder: Path, number: int, model: str, total: float) -> dict:
    """Run both, in an order that alternates between rounds."""
    runs = {}
    order = (bare, pipeline) if number % 2 else (pipeline, bare)
    for run in order:
        started = time.perf_counter()
        seconds = run(folder / "in", folder / f"{run.__name__}{number}", model)
        runs[run.__name__] = {
            "seconds": round(seconds, 2),
            "start_up": round(time.perf_counter() - started - seconds, 2),
            "mp_per_second": round(total / seconds, 4),
        }
    return runs | {"ratio": round(runs["bare"]["seconds"] / runs["pipeline"]["seconds"], 4)}


def pipeline(source: Path, destination: Path, model: str) -> float:
    """Return the seconds that `imgtx upscale` works, start-up excluded."""
    command = ["-m", "jobs.cli", "upscale", str(source), str(destination), "--model", model, "--json"]
    summary = json.loads(python(command).splitlines()[-1])
    if summary["failed"] or not summary["accounted"]:
        raise SystemExit(f"the run failed: {summary}")
    return summary["seconds_work"]


def bare(source: Path, destination: Path, model: str) -> float:
    """Return the seconds that the process pool works, start-up excluded."""
    command = ["-m", "bench.bare_loop", str(source), str(destination), "--model", model]
    return json.loads(python(command))["seconds"]


def python(arguments: list[str]) -> str:
    environment = os.environ | WORKER_ENVIRONMENT
    done = subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return done.stdout


if __name__ == "__main__":
    main()
