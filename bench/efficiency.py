"""Measure which share of a run's CPU seconds a bare loop of the same work takes: `imgtx upscale` and `bench.bare_loop`.

    python -m bench.efficiency [--megapixels 1 10 60] [--rounds 3] [--engine local]

Both read the same JPEG archive, run the same weights in as many processes as there are cores with the same allocator
settings, and write the same files durably; they take turns, and the numbers are medians. Of imgtx everything is
counted, from the command's start to the end of its last process. Of the bare loop only the work is: what its processes
take from the moment when each has its model, without imports, start and end. `whole` is the ratio with these counted.
`python -m bench.efficiency --source examples --megapixels 0` measures `make demo`.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.cpu_seconds import spend
from bench.photos import photo_archive
from bench.report import save
from pipeline.cluster.environment import WORKER_ENVIRONMENT

# Long sides of 0.1 to 1.8 megapixels, so that a small archive has several images.
SIDES = (384, 640, 1536, 1280, 768, 1024, 1152)
TARGETS = {1: 0.7, 10: 0.9, 60: 0.95}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=int, nargs="*", default=[1, 10, 60])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="sr-x2")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--source", type=Path, help="a folder of images instead of a generated archive")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        rows = [measure(Path(name), size, options) for size in options.megapixels]
    values = {"model": options.model, "engine": options.engine, "rounds": options.rounds, "rows": rows}
    save("demo" if options.source else "efficiency", values)
    for row in rows:
        target = f" (target: {row['target']:g})" if "target" in row else ""
        print(
            f"{row['megapixels']:6.1f} MP, {row['images']:3} images: bare {row['bare']:.1f} CPU s "
            f"({row['bare_whole']:.1f} whole), imgtx {row['imgtx']:.1f}; share {row['share']:.3f}{target}, "
            f"whole {row['whole']:.3f}"
        )


def measure(folder: Path, size: int, options: argparse.Namespace) -> dict:
    """Return a row of medians over rounds in which both take turns, in an order that alternates."""
    source = options.source or folder / f"in{size}"
    total = 0.0 if options.source else photo_archive(source, size, sides=SIDES)
    rounds = []
    for number in range(options.rounds):
        found: dict[str, float] = {}
        for run in (bare, imgtx) if number % 2 else (imgtx, bare):
            found |= run(source, folder / f"{run.__name__}{size}-{number}", options)
        found["share"] = found["bare"] / found["imgtx"]
        found["whole"] = found["bare_whole"] / found["imgtx"]
        rounds.append(found)
    names = (*rounds[0],)
    row = {name: round(median(found[name] for found in rounds), 3) for name in names}
    row |= {"megapixels": round(total or row["megapixels"], 2), "images": int(row["images"])}
    return row | ({"target": TARGETS[size]} if size in TARGETS else {})


def imgtx(source: Path, destination: Path, options: argparse.Namespace) -> dict[str, float]:
    command = ["-m", "jobs.cli", "upscale", str(source), str(destination), "--model", options.model, "--json"]
    spent = spend([sys.executable, *command, "--engine", options.engine])
    summary = json.loads(spent.stdout.splitlines()[-1])
    if summary["failed"] or not summary["accounted"]:
        raise SystemExit(f"the run failed: {summary}")
    return {"imgtx": spent.cpu, "images": summary["written"], "megapixels": summary["megapixels"]}


def bare(source: Path, destination: Path, options: argparse.Namespace) -> dict[str, float]:
    command = ["-m", "bench.bare_loop", str(source), str(destination), "--model", options.model]
    spent = spend([sys.executable, *command], os.environ | WORKER_ENVIRONMENT)
    return {"bare": json.loads(spent.stdout)["cpu"], "bare_whole": spent.cpu}


if __name__ == "__main__":
    main()
