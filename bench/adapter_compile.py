"""Whether torch.compile pays for other people's models on a CPU: what it saves a megapixel, and what it costs first.

    python -m bench.adapter_compile [--side 192] [--networks Compact]

The networks of bench.adapter_overhead, one thread, float32, contiguous, an empty cache. Compiled with `dynamic=True`,
because an archive's pictures bring tiles of many shapes; the second shape tells whether that holds. Calls by CPU time,
medians of three in turns; compiling by the clock, because compilers run in other processes.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from bench.adapter_overhead import networks
from bench.report import save

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--networks", default="", help="Only those whose name holds this.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        rows = [measure(n, net, options.side) for n, net in networks().items() if options.networks in n]
    save("adapter_compile", {"side": options.side, "rows": rows})
    for row in rows:
        print(
            f"{row['network']}: {row['eager']:.2f} -> {row['compiled']:.2f} s a megapixel, after "
            f"{row['first_seconds']:.0f} s, and {row['second_shape_seconds']:.0f} s for another shape: pays from "
            f"{row['pays_from_megapixels']} MP an actor on; off by {row['difference_levels']:.4f} of 255"
        )


@torch.inference_mode()
def measure(name: str, network: torch.nn.Module, side: int) -> dict[str, Any]:
    """One row: seconds an input megapixel each way, seconds of the first calls, and from where on it pays."""
    network.eval()
    torch._dynamo.reset()
    compiled = torch.compile(network, dynamic=True)
    tile, other = torch.rand(1, 3, side, side), torch.rand(1, 3, side - 64, side + 32)
    network(tile)
    first = clock(time.perf_counter, lambda: compiled(tile))
    second = clock(time.perf_counter, lambda: compiled(other))
    times: dict[str, list[float]] = {"eager": [], "compiled": []}
    for turn in range(ROUNDS):
        ways: list[tuple[str, Callable[..., Any]]] = [("eager", network), ("compiled", compiled)]
        for way, call in ways if turn % 2 else reversed(ways):
            times[way].append(clock(time.process_time, lambda call=call: call(tile)) / (side * side / 1e6))
    eager, fast = median(times["eager"]), median(times["compiled"])
    return {
        "network": name,
        "eager": round(eager, 3),
        "compiled": round(fast, 3),
        "first_seconds": round(first, 1),
        "second_shape_seconds": round(second, 1),
        "pays_from_megapixels": round((first + second) / (eager - fast), 1) if eager > fast else None,
        "difference_levels": round(float((network(tile) - compiled(tile)).abs().max()) * 255, 4),
    }


def clock(timer: Callable[[], float], work: Callable[[], Any]) -> float:
    started = timer()
    work()
    return timer() - started


if __name__ == "__main__":
    main()
