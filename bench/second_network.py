"""Measure what the second network of a run costs that chooses a model for each picture: CPU seconds and memory.

    python -m bench.second_network [--scale 2] [--side 64]

An actor loads the weights for clean pictures when it starts, and those for photos with the first picture that needs
them. Both are loaded here in that order, each followed by one square picture of --side pixels; memory is what the
process holds after each step (its resident set). The smaller the picture, the more of the memory is the network's.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import imgtx
from bench.report import machine, save
from imgtx.models.choice import KINDS, network_for


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--side", type=int, default=64)
    options = parser.parse_args()
    picture = np.random.default_rng(0).integers(0, 256, (options.side, options.side, 3), np.uint8)
    print(machine())
    print(f"{'step':28} {'CPU s':>7} {'MB more':>8}")
    rows, held = [], []
    for kind in KINDS:
        name, _ = network_for(kind, options.scale)
        held.append(_measured(rows, f"load {name}", lambda name=name: imgtx.load(name, device="cpu")))
        for which in ("first", "second"):
            _measured(rows, f"{which} picture by {name}", lambda: held[-1](picture))
    save("second_network", {"scale": options.scale, "side": options.side, "rows": rows})


def _measured(rows: list[dict], step: str, call):
    memory, used = _resident(), time.process_time()
    result = call()
    row = {
        "step": step,
        "cpu_seconds": round(time.process_time() - used, 3),
        "megabytes": round((_resident() - memory) / 1e6, 1),
    }
    rows.append(row)
    print(f"{step:28} {row['cpu_seconds']:7.3f} {row['megabytes']:8.1f}", flush=True)
    return result


def _resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


if __name__ == "__main__":
    main()
