"""Measure which share of a GPU's rate a run keeps: the local engine beside the bare model on tensors in its memory.

    python -m bench.gpu_efficiency [--device cuda] [--megapixels 400] [--rounds 3] [--model sr-x2]

The bare model runs on batches of tiles that are on the device already, in the precision, tile size and batch that a run
takes there; its output stays there. The run is `imgtx upscale --engine local` over a JPEG archive, of which the clock
begins when its workers are ready, as its summary says. Both in input megapixels a second, by the wall clock, so the
machine has to be idle. Also printed: how many CPU cores the run took, which is its CPU seconds after start-up by its
seconds. `--device cpu --megapixels 0.1 --seconds 1 --rounds 1` tries the program without a GPU; those numbers mean
nothing.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.cpu_seconds import spend
from bench.efficiency import SIDES
from bench.photos import photo_archive
from bench.report import save

TARGET = 0.95
# A photo that is cut into tiles as most are; its halos are work that the run has too.
PHOTO = (1536, 2048)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--megapixels", type=float, default=400)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the bare model, each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="sr-x2")
    options = parser.parse_args()
    bare, runs = [], []
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        source, few = Path(name) / "in", Path(name) / "few"
        megapixels = photo_archive(source, options.megapixels, sides=SIDES)
        photo_archive(few, 0.1, sides=SIDES[:1])
        for number in range(options.rounds):
            bare.append(bare_rate(options))
            start_up = run(few, Path(name) / f"few{number}", options)["cpu"]
            found = run(source, Path(name) / f"out{number}", options)
            found["cores"] = max(0.0, found["cpu"] - start_up) / found["seconds"]
            runs.append(found)
    rate = {
        "bare": round(median(bare), 2),
        "run": round(median(megapixels / one["seconds"] for one in runs), 2),
    }
    share = round(median(megapixels / one["seconds"] / rate for one, rate in zip(runs, bare, strict=True)), 3)
    values = {
        "device": options.device,
        "device_name": name_of(options.device),
        "model": options.model,
        "rounds": options.rounds,
        "megapixels": round(megapixels, 1),
        "megapixels_per_second": rate,
        "share": share,
        "target": TARGET,
        "cpu_cores": round(median(one["cores"] for one in runs), 2),
    }
    if options.device != "cpu":
        save("gpu_efficiency", values)
    print(json.dumps(values, indent=1))


def bare_rate(options: argparse.Namespace) -> float:
    """Return input megapixels a second of the model on full batches of tiles, of whole photos with their halos."""
    import torch

    import imgtx

    predictor = imgtx.load(options.model, device=options.device)
    cut = predictor.plan_for(*PHOTO)
    batch = torch.rand(predictor.batch, 3, cut.tile_height, cut.tile_width, device=options.device)
    # What a photo's pixels cost in tiles: of each only its core is new.
    share = PHOTO[0] * PHOTO[1] / (cut.count * cut.tile_height * cut.tile_width)
    done, began = 0, 0.0
    with torch.inference_mode(), predictor._autocast():
        while not began or time.perf_counter() - began < options.seconds:
            predictor.model(batch, predictor._state)
            if options.device != "cpu":
                torch.cuda.synchronize()
            # The first call chooses algorithms and is not counted.
            if began:
                done += 1
            else:
                began = time.perf_counter()
        seconds = time.perf_counter() - began
    return done * batch.shape[0] * cut.tile_height * cut.tile_width * share / 1e6 / seconds


def run(source: Path, destination: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the CPU seconds of all processes of a run, and the wall seconds of its work."""
    command = ["-m", "jobs.cli", "upscale", str(source), str(destination), "--model", options.model, "--json"]
    gpus = "0" if options.device == "cpu" else "1"
    spent = spend([sys.executable, *command, "--engine", "local", "--gpus", gpus])
    summary = json.loads(spent.stdout.splitlines()[-1])
    if summary["failed"] or not summary["accounted"]:
        raise SystemExit(f"the run failed: {summary}")
    return {"cpu": spent.cpu, "seconds": summary["seconds_work"]}


def name_of(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device != "cpu" else "cpu"


if __name__ == "__main__":
    main()
