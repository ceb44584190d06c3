"""Measure generation: images per second of the bare sampler, and the share of it that whole runs keep.

    python -m bench.generate_speed [--model text-to-image] [--images 96] [--workers 1] [--repeats 3]

The bare sampler is the model called in a loop on batches of its own size, in one process with one thread. A run is
`imgtx generate` on the local engine with `--workers` processes; its rate leaves start-up out, as its summary does. Both
are repeated and the median is taken, because other programs share the machine; the share compares CPU seconds, too.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.cpu_seconds import spend
from bench.report import save
from imgtx.models.generation import Generation, request
from imgtx.models.references import load_model

BATCHES = (1, 2, 4, 8, 16)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default="text-to-image")
    arguments.add_argument("--images", type=int, default=96)
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--name", default="generate_speed", help="of the JSON file under bench/results/")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    own = Generation.of(model.info).batch or max(BATCHES)
    bare = {batch: bare_rate(model, batch, max(batch, options.images // 8)) for batch in BATCHES}
    for batch, rate in bare.items():
        print(f"bare sampler, batches of {batch}: {rate['images_per_second']:.3f} images/s", flush=True)
    # Alternating, so that both meet the same neighbours on the machine.
    samplers, runs = [], []
    for _ in range(options.repeats):
        samplers.append(bare_rate(model, own, options.images // 2))
        runs.append(run_rate(options.model, options.images, options.workers))
        print(f"bare {samplers[-1]}, run {runs[-1]}", flush=True)
    middle = [statistics.median(r["images_per_second"] for r in found) for found in (samplers, runs)]
    cpu = [statistics.median(r["cpu_seconds_per_image"] for r in found) for found in (samplers, runs)]
    result = {
        "bare_images_per_second": round(middle[0], 3),
        "run_images_per_second": round(middle[1], 3),
        "share_per_worker": round(middle[1] / options.workers / middle[0], 3),
        "bare_cpu_seconds_per_image": round(cpu[0], 4),
        "run_cpu_seconds_per_image": round(cpu[1], 4),
        "share_by_cpu_seconds": round(cpu[0] / cpu[1], 3),
    }
    print(result)
    command = f"python -m bench.generate_speed --model {options.model} --images {options.images}"
    command += f" --workers {options.workers} --repeats {options.repeats}"
    facts = {
        "command": command,
        "model": options.model,
        "rounds": options.repeats,
        "batch": own,
        "bare": bare,
    }
    save(options.name, facts | result)


@torch.inference_mode()
def bare_rate(model, batch: int, images: int) -> dict[str, float]:
    """Return images per second and CPU seconds per image of the model in batches of `batch`."""
    offer = Generation.of(model.info)
    canvas = torch.zeros(batch, 3, offer.height, offer.width)
    rows = [request({"prompt": "a red circle", "seed": seed}, model.info).conditions for seed in range(batch)]
    model(canvas, None, rows)
    done = 0
    started, cpu = time.perf_counter(), time.process_time()
    while done < images:
        model(canvas, None, rows)
        done += batch
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"images_per_second": round(done / seconds, 3), "cpu_seconds_per_image": round(cpu / done, 4)}


def run_rate(model: str, images: int, workers: int) -> dict[str, float]:
    """Return images per second of a run after its start-up, and CPU seconds per image of its processes after theirs."""
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as folder:
        table = Path(folder) / "prompts.txt"
        one, all_of_them = (Path(folder) / name for name in ("one", "all"))
        table.write_text("a red circle\n")
        start_up = run_seconds(model, table, one, workers)
        table.write_text("".join(f"a red circle number {n}\n" for n in range(images + 1)))
        whole = run_seconds(model, table, all_of_them, workers)
    return {
        "images_per_second": round((images + 1) / whole["work"], 3),
        "cpu_seconds_per_image": round((whole["cpu"] - start_up["cpu"]) / images, 4),
    }


def run_seconds(model: str, table: Path, out: Path, workers: int) -> dict[str, float]:
    command = [sys.executable, "-m", "jobs.cli", "generate", str(table), str(out), "--model", model]
    command += ["--engine", "local", "--workers", str(workers), "--json", "--gpus", "0"]
    spent = spend(command)
    return {"work": json.loads(spent.stdout.splitlines()[-1])["seconds_work"], "cpu": spent.cpu}


if __name__ == "__main__":
    main()
