"""Measure what a command costs before it works: wall seconds of whole processes, medians.

python -m bench.startup [--rounds 3]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from bench.report import save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        source = Path(name) / "in"
        source.mkdir()
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(source / "a.png")
        commands = {
            "imgtx --help": lambda _: ["--help"],
            "imgtx plan, one image": lambda n: ["plan", "upscale", str(source), f"{name}/plan{n}"],
            "imgtx upscale, one image of 16 x 16": lambda n: ["upscale", str(source), f"{name}/out{n}"],
            "imgtx upscale again, all current": lambda n: ["upscale", str(source), f"{name}/out{n}"],
        }
        times = {label: [] for label in commands}
        for number in range(options.rounds):
            for label, arguments in commands.items():
                times[label].append(wall(arguments(number)))
    seconds = {label: round(median(values), 2) for label, values in times.items()}
    save("startup", {"rounds": options.rounds, "seconds": seconds})
    for label, value in seconds.items():
        print(f"{value:6.2f} s  {label}")


def wall(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jobs.cli", *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
