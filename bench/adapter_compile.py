"""Measure whether torch.compile pays for third-party models, as `imgtx models probe --compile` does.

    python -m bench.adapter_compile [--side 256] [--limit 1800] [--networks Compact]

The networks of bench.adapter_overhead, one thread, float32, contiguous, an empty cache. CPU time, because the machine
may have other work. The rest of the probe is left out: it is slow and shows nothing here.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.adapter_overhead import networks
from bench.report import save
from imgtx.models.references import load_model
from imgtx.probing.compile_trial import Trial, judged, measure
from pipeline.cluster.environment import WORKER_ENVIRONMENT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256, help="Side of the tile in pixels, a multiple of 8.")
    parser.add_argument("--limit", type=float, default=1800, help="Seconds for each network.")
    parser.add_argument("--networks", default="", help="Measure only networks whose name contains this.")
    options = parser.parse_args()
    chosen = {name: network for name, network in networks().items() if options.networks in name}
    rows = []
    for name, network in chosen.items():
        rows.append({"network": name} | one(network, options))
        print(rows[-1], flush=True)
    save("adapter_compile", {"side": options.side, "limit": options.limit, "rows": rows})


def one(network: torch.nn.Module, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the probe would measure, and its verdict."""
    pixels = np.random.default_rng(0).integers(0, 256, (options.side, options.side, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pth"
        torch.save(network.eval().state_dict(), path)
        info = replace(load_model(path).info, compiled_tile=options.side)
        environment = WORKER_ENVIRONMENT | {"XDG_CACHE_HOME": folder}
        found = measure(
            Trial(str(path), info, "cpu", options.limit), pixels, environment, lambda seconds: None
        )
    return found | {"not_compiled": judged(info, found).not_compiled}


if __name__ == "__main__":
    main()
