"""Measure what a command costs before it works: CPU seconds of all its processes, medians.

python -m bench.startup [--rounds 3]
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from bench.cpu_seconds import spend
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
        spent: dict[str, list[float]] = {label: [] for label in commands}
        for number in range(options.rounds):
            for label, arguments in commands.items():
                spent[label].append(spend([sys.executable, "-m", "jobs.cli", *arguments(number)]).cpu)
    seconds = {label: round(median(values), 2) for label, values in spent.items()}
    save("startup", {"rounds": options.rounds, "cpu_seconds": seconds})
    for label, value in seconds.items():
        print(f"{value:6.2f} CPU s  {label}")


if __name__ == "__main__":
    main()
