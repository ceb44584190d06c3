"""Measure what an adapter costs over calling the model itself, on the same tiles, in one run.

    python -m bench.adapter_overhead [--rounds 11] [--side 64]

Community architectures with random weights (time does not depend on them) and one thread: the network called directly,
spandrel's own call, imgtx's adapter, and imgtx's whole path from integers to integers. The four take turns on the same
tile. Results are medians over rounds of CPU time, because the machine may have other work.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from bench.report import save
from imgtx.inference.predictor import Predictor
from imgtx.models.adapters.spandrel import import_spandrel
from imgtx.models.references import load_model

# Percent over the model itself.
TARGET = 3.0


def networks() -> dict[str, torch.nn.Module]:
    """Return published architectures: a fast one, the common one (some of its blocks), a Transformer."""
    import_spandrel()
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.SwinIR import SwinIR

    swinir = SwinIR(
        upscale=2,
        img_size=64,
        window_size=8,
        depths=[6] * 4,
        embed_dim=60,
        num_heads=[6] * 4,
        mlp_ratio=2,
        upsampler="pixelshuffledirect",
    )
    return {
        "Compact (64 features, 16 layers)": Compact(num_feat=64, num_conv=16, upscale=4),
        "ESRGAN (64 features, 2 of 23 blocks)": ESRGAN(num_blocks=2),
        "SwinIR-light": swinir,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--side", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name, network, options) for name, network in networks().items()]
    save("adapter_overhead", {"side": options.side, "rounds": options.rounds, "rows": rows})
    for row in rows:
        print(
            f"{row['network']}: {row['ms']['network']:.1f} ms a tile; adapter {row['adapter_percent']:+.2f}% (target: "
            f"< {TARGET:g}%), whole path {row['path_percent']:+.2f}%"
        )


def measure(name: str, network: torch.nn.Module, options: argparse.Namespace) -> dict[str, Any]:
    """Return one row: the median of each way, and the median over rounds of its percentage over the bare network."""
    side = options.side
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    tile = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pth"
        torch.save(network.eval().state_dict(), path)
        adapter: Any = load_model(path)
    descriptor = import_spandrel().ModelLoader().load_from_state_dict(network.state_dict())
    predictor = Predictor(adapter, tile=max(side, 4 * adapter.info.halo))
    ways: dict[str, Callable[[], Any]] = {
        "network": lambda: network(tile),
        "spandrel": lambda: descriptor(tile),
        "adapter": lambda: adapter(tile, None),
        "path": lambda: predictor(pixels),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        for turn in range(options.rounds + 1):
            # No way is always the first.
            order = list(ways) if turn % 2 else list(reversed(ways))
            for way in order:
                started = time.process_time()
                ways[way]()
                times[way].append(1000 * (time.process_time() - started))
    kept = {way: values[1:] for way, values in times.items()}
    ratio = {
        way: median(v / n for v, n in zip(values, kept["network"], strict=True))
        for way, values in kept.items()
    }
    return {
        "network": name,
        "ms": {way: round(median(values), 2) for way, values in kept.items()},
        "adapter_percent": round(100 * (ratio["adapter"] - 1), 2),
        "path_percent": round(100 * (ratio["path"] - 1), 2),
    }


if __name__ == "__main__":
    main()
