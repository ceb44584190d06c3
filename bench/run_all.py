"""Run every benchmark, print one table at the end and save JSON under bench/results/, for `make bench`.

    python -m bench.run_all [--quick] [--again]

What has a result of this commit is not measured again, so that the same command continues where it stopped; --again
measures everything. --quick limits each to a minute or two and saves JSON under bench/quick/; the numbers of
docs/benchmarks.md come from the full run. If a benchmark fails, the others still run, and the exit code is 1.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.report import FOLDER, RESULTS, commit, machine

FULL: dict[str, list[str]] = {
    "startup": [],
    "model_speed": [],
    "restore_speed": [],
    "adapter_overhead": [],
    "codecs": [],
    "small_files": [],
    "plan_million": [],
    "list_s3": [],
    "slow_down": [],
    "memory": [],
    "training_feed": [],
    "efficiency": [],
}
QUICK = {
    "startup": ["--rounds", "1"],
    "model_speed": ["--scales", "2", "--rounds", "1"],
    "restore_speed": ["--side", "128", "--rounds", "1"],
    "adapter_overhead": ["--rounds", "5"],
    "small_files": ["--files", "100", "--rounds", "1", "--engines", "local"],
    "plan_million": ["--keys", "100000"],
    "list_s3": ["--keys", "50000"],
    "slow_down": ["--reads", "120"],
    "memory": ["--model", "smallest", "--width", "4000", "--height", "3000"],
    "training_feed": ["--steps", "8", "--rounds", "1"],
    "efficiency": ["--megapixels", "1", "--rounds", "1"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    folder = FOLDER / "quick" if options.quick else RESULTS
    environment = os.environ | {"IMGTX_BENCH_RESULTS": str(folder)}
    failed = []
    for name, arguments in FULL.items():
        arguments = QUICK.get(name, []) if options.quick else arguments
        if not options.again and measured_at(folder / f"{name}.json") == commit():
            print(f"\n== {name} has a result of this commit", flush=True)
            continue
        print(f"\n== {name} {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"bench.{name}", *arguments], check=False, env=environment
        )
        if done.returncode:
            failed.append(name)
    results = {
        name: json.loads(path.read_text())
        for name in FULL
        if name not in failed and (path := folder / f"{name}.json").exists()
    }
    print(f"\n== {machine()}\n{table(results)}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def measured_at(path: Path) -> str:
    """Return the commit that a result was measured at; "" where there is none, or files had been changed."""
    try:
        found = json.loads(path.read_text()).get("commit", "")
    except (OSError, ValueError):
        return ""
    return "" if found.endswith("-dirty") else found


def table(results: dict[str, dict]) -> str:
    """Return the main numbers, a line each: what, measured, target."""
    lines = [("what", "measured", "target"), *_lines(results)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _lines(results: dict[str, dict]) -> Iterator[tuple[str, str, str]]:
    for row in results.get("efficiency", {}).get("rows", []):
        target = f"at least {row['target']:g}" if "target" in row else ""
        yield f"bare loop / imgtx, CPU seconds, {row['megapixels']:.0f} MP", f"{row['share']:.3f}", target
    if found := results.get("model_speed"):
        for row in found["seconds_per_megapixel"]:
            name = f"sr-x{row['scale']}"
            if "ratio" in row:
                what = f"{name} / SwinIR-light, {row['precision']}, {row['side']} px"
                yield what, f"{row['ratio']:.1f} times", "at least 8" if row["scale"] == 2 else ""
            yield f"{name}, {row['precision']}, {row['side']} px", f"{row[name]:.1f} s/MP", ""
    for row in results.get("restore_speed", {}).get("rows", []):
        limit = results["restore_speed"]["limit"]
        target = f"at most {limit:g}" if row["network"] in ("restore", "inpaint") else ""
        what = f"{row['network']} / sr-x2 per input megapixel, {row['precision']}"
        yield what, f"{row['times_sr_x2']:.2f} times", target
    for row in results.get("adapter_overhead", {}).get("rows", []):
        yield f"adapter over {row['network']}", f"{row['adapter_percent']:+.2f}%", "under 3%"
    if found := results.get("memory"):
        width, height = found["image"]
        largest = max(peak["rss"] for peak in found["peak_mb"].values())
        yield (
            f"largest process, {width} x {height}, {found['model']}",
            f"{largest} MB",
            f"under {found['limit_mb']} MB",
        )
    if found := results.get("training_feed"):
        for epoch in ("first_epoch", "later"):
            yield (
                f"training fed by the stream / from memory, {epoch}",
                f"{found[f'{epoch}_ratio']:.3f}",
                "at least 0.9",
            )
    for row in results.get("small_files", {}).get("rows", []):
        what = f"256 x 256, {row['model']} model, {row['by']}"
        yield what, f"{row['ms_a_file']:.1f} ms a file after {row['start_up']:.1f} s", ""
        if "ratio" in row:
            yield f"{what}: bare pool / this", f"{row['ratio']:.2f}", f"at least {row['target']:g}"
    if found := results.get("startup"):
        for command, seconds in found["cpu_seconds"].items():
            yield command, f"{seconds:.2f} CPU s", ""
    for row in results.get("codecs", {}).get("rows", []):
        if row["by"] == "imgtx":
            yield f"{row['direction']} {row['codec']}, {row['side']} px", f"{row['ms']:.1f} ms", ""
    if found := results.get("plan_million"):
        for row in found["rows"]:
            target = "under 60 s, 2000 MB" if row["step"].startswith("plan") else ""
            measured = f"{row['seconds']:.1f} s, {row['megabytes']} MB"
            yield f"{row['step']}, {found['keys']} keys", measured, target
    if found := results.get("list_s3"):
        for row in found["rows"]:
            yield f"list {found['keys']} keys, {row['listing']}", f"{row['seconds']:.1f} s", ""
    for row in results.get("slow_down", {}).get("rows", []):
        shape = f"{row['processes']} x {row['at_once']} readers, {row['pacing']}"
        yield f"SlowDown: {shape}", f"{row['refused']} refused of {row['served']}", ""


if __name__ == "__main__":
    main()
