"""Run every benchmark, save JSON under bench/results/ and write the tables of docs/benchmarks.md, for `make bench`.

    python -m bench.run_all [--quick] [--again] [--only NAME ...] [--pause PID ...]

What has a result of this code is not measured again (pages, tests and results may have changed since), so that the same
command continues where it stopped; --again measures everything. --pause stops other work of this machine, such as a
training, with all its processes, while it measures: `make bench ARGS="--pause 1234"`. --quick limits each to a minute
or two and saves JSON under bench/quick/; the page's numbers come from the full run. If a benchmark fails, the others
still run, and the exit code is 1.
"""

import argparse
import os
import subprocess
import sys

from bench.pause import paused
from bench.report import FOLDER, RESULTS, is_current, machine
from bench.tables import page_with_tables, speed_table, text_of

# What is measured, by the name of the result. A result is saved whole, so each is as small as an hour of two cores.
FULL: dict[str, list[str]] = {
    "startup": ["startup"],
    "model_speed": ["model_speed"],
    "restore_speed": ["restore_speed"],
    "adapter_overhead": ["adapter_overhead"],
    "codecs": ["codecs"],
    "small_files_free": ["small_files", "--models", "free"],
    "small_files_smallest": ["small_files", "--models", "smallest"],
    "plan_million": ["plan_million"],
    "list_s3": ["list_s3"],
    "slow_down": ["slow_down"],
    "memory_local": ["memory", "--engine", "local", "--tiles", "8"],
    "memory_ray": ["memory", "--engine", "ray", "--tiles", "8"],
    "training_feed": ["training_feed"],
    "efficiency_1mp": ["efficiency", "--megapixels", "1", "--engines", "local", "ray"],
    "efficiency_10mp": ["efficiency", "--megapixels", "10", "--engines", "local", "ray"],
    "efficiency_60mp": ["efficiency", "--megapixels", "60", "--engines", "local", "ray"],
}
QUICK: dict[str, list[str]] = {
    "startup": ["--rounds", "1"],
    "model_speed": ["--scales", "2", "--rounds", "1"],
    "restore_speed": ["--side", "128", "--rounds", "1"],
    "adapter_overhead": ["--rounds", "5"],
    "small_files_free": ["--files", "100", "--rounds", "1", "--by", "local", "vips"],
    "plan_million": ["--keys", "100000"],
    "list_s3": ["--keys", "50000"],
    "slow_down": ["--reads", "120"],
    "memory_local": ["--model", "smallest", "--tiles", "0", "--width", "4000", "--height", "3000"],
    "training_feed": ["--steps", "8", "--rounds", "1"],
    "efficiency_1mp": ["--rounds", "1", "--engines", "local"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[*FULL], metavar="NAME", default=[*FULL])
    parser.add_argument("--pause", nargs="+", type=int, metavar="PID", default=[])
    options = parser.parse_args()
    folder = FOLDER / "quick" if options.quick else RESULTS
    environment = os.environ | {"IMGTX_BENCH_RESULTS": str(folder)}
    failed = []
    with paused(options.pause):
        for name in options.only:
            if options.quick and name not in QUICK:
                continue
            program, *arguments = FULL[name] + (QUICK[name] if options.quick else [])
            if not options.again and is_current(folder / f"{name}.json"):
                print(f"\n== {name} has a result of this code", flush=True)
                continue
            print(f"\n== {program} {' '.join(arguments)}", flush=True)
            command = [sys.executable, "-m", f"bench.{program}", *arguments]
            if subprocess.run(command, check=False, env=environment).returncode:
                failed.append(name)
    print(f"\n== {machine()}\n{text_of(speed_table(folder))}")
    if not options.quick:
        page_with_tables(write=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
