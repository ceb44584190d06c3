"""Run every benchmark, save JSON under bench/results/ and write the tables of docs/, for `make bench`.

    python -m bench.run_all [--quick] [--again] [--only NAME ...] [--pause PID ...] [--benchmarks FOLDER]

What has a result of this code is not measured again (pages, tests and results may have changed since), so that the same
command continues where it stopped; --again measures everything. --pause stops other work of this machine, such as a
training, with all its processes, while it measures: `make bench ARGS="--pause 1234"`. --quick limits each to a minute
or two and saves JSON under bench/quick/; the page's numbers come from the full run. If a benchmark fails, the others
still run, and the exit code is 1. Quality is measured on the benchmark sets in FOLDER (`bench.quality`); results whose
sets are not there stay as they are.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bench.pause import paused
from bench.quality import DEPENDS, FOLDER_VARIABLE, MEASURED, result_name
from bench.report import FOLDER, NOT_MEASURED, RESULTS, is_current, machine
from bench.tables import pages_with_tables, speed_table, text_of

# What is measured, by the name of the result. A result is saved whole, so each is as small as an hour of two cores.
FULL: dict[str, list[str]] = {
    "startup": ["startup"],
    "model_speed": ["model_speed"],
    "restore_speed": ["restore_speed"],
    "adapter_overhead": ["adapter_overhead"],
    "adapter_compile": ["adapter_compile", "--networks", "Compact"],
    "style_speed": ["style_speed"],
    "codecs": ["codecs"],
    "small_files_free": ["small_files", "--models", "free"],
    "small_files_smallest": ["small_files", "--models", "smallest"],
    "plan_million": ["plan_million"],
    "plan_four_million": ["plan_million", "--keys", "4000000", "--name", "plan_four_million"],
    "list_s3": ["list_s3"],
    "slow_down": ["slow_down"],
    "memory_local": ["memory", "--engine", "local", "--tiles", "8"],
    "memory_ray": ["memory", "--engine", "ray", "--tiles", "8"],
    "training_feed": ["training_feed"],
    "generate_speed": ["generate_speed"],
    "sampler_steps": [
        *("sampler_steps", "imgtx/packaged/text-to-image.safetensors", "--prompts", "60"),
        *("--evaluations", "4,6,8,12,16,25", "--heun", "4,8", "--precision", "bfloat16"),
    ],
    "demo": ["efficiency", "--source", "examples", "--megapixels", "0"],
    "efficiency_1mp": ["efficiency", "--megapixels", "1", "--engines", "local", "ray"],
    "efficiency_10mp": ["efficiency", "--megapixels", "10", "--engines", "local", "ray"],
    "efficiency_60mp": ["efficiency", "--megapixels", "60", "--engines", "local", "ray"],
    **{result_name(name): ["quality", name] for name in MEASURED},
}
QUALITY = {result_name(name): measurement for name, measurement in MEASURED.items()}
QUICK: dict[str, list[str]] = {
    "startup": ["--rounds", "1", "--images", "50"],
    "model_speed": ["--scales", "2", "--rounds", "1"],
    "restore_speed": ["--side", "128", "--rounds", "1"],
    "adapter_overhead": ["--rounds", "5"],
    "small_files_free": ["--files", "100", "--rounds", "1", "--by", "local", "vips"],
    "plan_million": ["--keys", "100000"],
    "list_s3": ["--keys", "50000"],
    "slow_down": ["--reads", "120"],
    "memory_local": ["--model", "smallest", "--tiles", "0", "--width", "4000", "--height", "3000"],
    "training_feed": ["--steps", "8", "--rounds", "1"],
    "generate_speed": ["--images", "16", "--repeats", "1"],
    result_name("sr-x4"): ["--sets", "set5"],
    "efficiency_1mp": ["--rounds", "1", "--engines", "local"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[*FULL], metavar="NAME", default=[*FULL])
    parser.add_argument("--pause", nargs="+", type=int, metavar="PID", default=[])
    parser.add_argument("--benchmarks", type=Path, metavar="FOLDER", default=os.environ.get(FOLDER_VARIABLE))
    options = parser.parse_args()
    if options.benchmarks is not None and not options.benchmarks.is_dir():
        parser.error(
            f"{options.benchmarks} is no folder: give one with the benchmark sets (bench.quality says which)"
        )
    folder = FOLDER / "quick" if options.quick else RESULTS
    environment = os.environ | {
        "IMGTX_BENCH_RESULTS": str(folder),
        FOLDER_VARIABLE: str(options.benchmarks or ""),
    }
    if options.benchmarks is None and QUALITY.keys() & {*options.only}:
        print(
            f"== the quality tables stay as they are: no folder was given (--benchmarks or {FOLDER_VARIABLE})"
        )
    failed = []
    with paused(options.pause):
        for name in options.only:
            if options.quick and name not in QUICK:
                continue
            if name in QUALITY:
                if options.benchmarks is None:
                    continue
                if missing := QUALITY[name].missing(options.benchmarks):
                    print(
                        f"\n== {name} stays as it is: {options.benchmarks} has no {', '.join(missing)}",
                        flush=True,
                    )
                    continue
            program, *arguments = FULL[name] + (QUICK[name] if options.quick else [])
            depends = DEPENDS if name in QUALITY else NOT_MEASURED
            if not options.again and is_current(folder / f"{name}.json", depends):
                print(f"\n== {name} has a result of this code", flush=True)
                continue
            print(f"\n== {program} {' '.join(arguments)}", flush=True)
            command = [sys.executable, "-m", f"bench.{program}", *arguments]
            if subprocess.run(command, check=False, env=environment).returncode:
                failed.append(name)
    print(f"\n== {machine()}\n{text_of(speed_table(folder))}")
    if not options.quick:
        pages_with_tables(write=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
