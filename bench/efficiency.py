"""Measure which share of a run's CPU seconds a bare loop of the same work takes: `imgtx upscale` and `bench.bare_loop`.

    python -m bench.efficiency [--megapixels 1 10 60] [--rounds 3] [--engines local]

All read the same JPEG archive, run the same weights in as many processes as there are cores with the same allocator
settings, and write the same files durably; they take turns, and the numbers are medians. Of imgtx everything is
counted, from the command's start to the end of its last process; `start_up` is what a run over one image of 16 x 16
takes, in the same round, and `after_start_up` the share without it. Of the bare loop only the work is counted: what its
processes take from the moment when each has its model, without imports, start and end. `bare_whole` has these.
Each size is a result of its own, `efficiency_10mp.json`, saved as soon as it is measured.
`python -m bench.efficiency --source examples --megapixels 0` measures `make demo`.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from PIL import Image

from bench.cpu_seconds import spend
from bench.photos import photo_archive
from bench.report import save
from pipeline.cluster.environment import WORKER_ENVIRONMENT

# Long sides of 0.1 to 1.8 megapixels, so that a small archive has several images.
SIDES = (384, 640, 1536, 1280, 768, 1024, 1152)
TARGETS = {1: 0.7, 10: 0.9, 60: 0.95}
DEMO, DEMO_TARGET = "examples", 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=int, nargs="*", default=[1, 10, 60])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="sr-x2")
    parser.add_argument("--engines", nargs="+", default=["local"])
    parser.add_argument("--source", type=Path, help="a folder of images instead of a generated archive")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        for size in options.megapixels:
            found = measure(Path(name), size, options)
            demo = options.source and options.source.name == DEMO
            limit = DEMO_TARGET if demo else TARGETS.get(size)
            target = {"target": limit} if limit else {}
            values = {"model": options.model, "rounds": options.rounds} | found | target
            save("demo" if options.source else f"efficiency_{size}mp", values)
            for row in found["rows"]:
                print(
                    f"{found['megapixels']:6.1f} MP, {found['images']:3} images: bare {found['bare']:.1f} CPU s "
                    f"({found['bare_whole']:.1f} whole), {row['engine']} {row['cpu']:.1f}, of it start-up "
                    f"{row['start_up']:.1f}; share {row['share']:.3f}, after start-up {row['after_start_up']:.3f}",
                    flush=True,
                )


def measure(folder: Path, size: int, options: argparse.Namespace) -> dict:
    """Return medians over rounds in which all take turns, in an order that alternates; a row for each engine."""
    source = options.source or folder / f"in{size}"
    total = 0.0 if options.source else photo_archive(source, size, sides=SIDES)
    tiny = folder / "tiny"
    tiny.mkdir(exist_ok=True)
    Image.new("RGB", (16, 16)).save(tiny / "a.png")
    rounds = []
    images = 0
    for number in range(options.rounds):
        found: dict[str, dict[str, float]] = {}
        for by in ["bare", *options.engines][:: -1 if number % 2 else 1]:
            out = folder / f"{size}-{by}-{number}"
            if by == "bare":
                found[by] = bare(source, out, options.model)
                continue
            run = imgtx(source, out, options.model, by)
            start_up = imgtx(tiny, folder / f"tiny-{size}-{by}-{number}", options.model, by)["cpu"]
            found[by] = {"cpu": run["cpu"], "start_up": start_up}
            images, total = int(run["images"]), total or run["megapixels"]
        for engine in options.engines:
            spent = found[engine]
            spent["share"] = found["bare"]["work"] / spent["cpu"]
            spent["after_start_up"] = found["bare"]["work"] / (spent["cpu"] - spent["start_up"])
        rounds.append(found)
    rows = [{"engine": engine} | medians([found[engine] for found in rounds]) for engine in options.engines]
    both = medians([found["bare"] for found in rounds])
    return {
        "megapixels": round(total, 2),
        "images": images,
        "bare": both["work"],
        "bare_whole": both["whole"],
        "rows": rows,
    }


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(median(one[name] for one in found), 3) for name in found[0]}


def imgtx(source: Path, destination: Path, model: str, engine: str) -> dict[str, float]:
    command = ["-m", "jobs.cli", "upscale", str(source), str(destination), "--model", model, "--json"]
    spent = spend([sys.executable, *command, "--engine", engine])
    summary = json.loads(spent.stdout.splitlines()[-1])
    if summary["failed"] or not summary["accounted"]:
        raise SystemExit(f"the run failed: {summary}")
    return {"cpu": spent.cpu, "images": summary["written"], "megapixels": summary["megapixels"]}


def bare(source: Path, destination: Path, model: str) -> dict[str, float]:
    command = ["-m", "bench.bare_loop", str(source), str(destination), "--model", model]
    spent = spend([sys.executable, *command], os.environ | WORKER_ENVIRONMENT)
    return {"work": json.loads(spent.stdout)["cpu"], "whole": spent.cpu}


if __name__ == "__main__":
    main()
