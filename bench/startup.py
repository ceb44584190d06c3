"""Measure what a command costs beside its work: CPU seconds of all its processes, medians.

    python -m bench.startup [--rounds 3] [--images 1000]

One image of 16 x 16, and as many as --images of 8 x 8, which are made current once, before the rounds, by the program
that doubles pixels: planning reads the ledger and the listing, whatever the model is.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from bench.cpu_seconds import spend
from bench.models import free_model
from bench.report import save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        folder = Path(name)
        one, many = squares(folder / "one", 1, 16), squares(folder / "many", options.images, 8)
        free = ("--model", free_model(folder / "free.pt"))
        done = ("upscale", many, f"{name}/done", *free)
        imgtx(*done, "--engine", "local")
        # What is measured, its command in each round, and the most CPU seconds that it may take.
        commands = {
            "imgtx --help": (lambda _: ("--help",), 0.3),
            "imgtx plan, one image": (lambda n: ("plan", "upscale", one, f"{name}/plan{n}"), 1),
            "imgtx upscale, one image of 16 x 16": (lambda n: ("upscale", one, f"{name}/out{n}"), 6),
            "imgtx upscale again, all current": (lambda n: ("upscale", one, f"{name}/out{n}"), 1),
            f"imgtx plan, {options.images:,} new images": (
                lambda n: ("plan", "upscale", many, f"{name}/many{n}", *free),
                1,
            ),
            f"imgtx plan, {options.images:,} images, all current": (lambda _: ("plan", *done), 1),
            f"imgtx upscale, {options.images:,} images, all current": (lambda _: done, 1),
        }
        spent: dict[str, list[float]] = {label: [] for label in commands}
        for number in range(options.rounds):
            for label, (arguments, _) in commands.items():
                spent[label].append(imgtx(*arguments(number)))
    seconds = {label: round(median(values), 2) for label, values in spent.items()}
    targets = {label: limit for label, (_, limit) in commands.items()}
    save("startup", {"rounds": options.rounds, "cpu_seconds": seconds, "targets": targets})
    for label, value in seconds.items():
        print(f"{value:6.2f} CPU s (target: under {targets[label]:g})  {label}")


def imgtx(*arguments: str) -> float:
    """Run a command and return the CPU seconds of all its processes."""
    return spend([sys.executable, "-m", "jobs.cli", *arguments]).cpu


def squares(folder: Path, count: int, side: int) -> str:
    """Write black PNG files and return their folder."""
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(folder / f"{number:04}.png")
    return str(folder)


if __name__ == "__main__":
    main()
