"""Measure CPU seconds per input megapixel of the packaged upscalers and of SwinIR-light, in one run.

    python -m bench.model_speed [--scales 2 3 4] [--sides 256] [--rounds 3]

SwinIR-light is the usual compact Transformer: spandrel's implementation with the paper's settings of that scale and
random weights (time does not depend on them). Both process the same photos in float32 and in bfloat16 autocast, with
one thread and the allocator settings of the pipeline's workers; they take turns, and results are medians. Each network
gets the photo whole or in tiles without halo, whichever was fastest during warm-up. The loss of sr-x2 in bfloat16 is
measured on photos, in dB.
"""

import argparse
import os
import subprocess
import sys
import time
from statistics import median
from typing import Any

import numpy as np

from bench.report import save
from imgtx.inference.processor import this_processor
from pipeline.cluster.environment import WORKER_ENVIRONMENT

SWINIR_LIGHT = {
    "img_size": 64, "window_size": 8, "img_range": 1.0, "depths": [6] * 4, "embed_dim": 60,
    "num_heads": [6] * 4, "mlp_ratio": 2, "upsampler": "pixelshuffledirect", "resi_connection": "1conv",
}  # fmt: skip
# A processor that emulates bfloat16 is measured in float32 alone.
PRECISIONS = tuple(name for name in ("float32", "bfloat16") if name not in this_processor().emulated)
# Besides the whole photo; neither network is faster with smaller or larger ones.
TILES = (128, 256)
TARGET = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--sides", type=int, nargs="+", default=[256])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # glibc reads these variables when a process starts.
    if os.environ.get("MALLOC_TOP_PAD_") is None:
        command = [sys.executable, "-m", "bench.model_speed", *sys.argv[1:]]
        raise SystemExit(subprocess.run(command, env=os.environ | WORKER_ENVIRONMENT, check=False).returncode)
    import torch

    torch.set_num_threads(1)
    rows = [
        {"scale": scale} | row
        for scale in options.scales
        for side in options.sides
        for row in race(networks(scale), side, options.rounds)
    ]
    loss = bfloat16_loss()
    save("model_speed", {"rounds": options.rounds, "seconds_per_megapixel": rows, "bfloat16": loss})
    for row in rows:
        rates = ", ".join(
            f"{name} {row[name]:.1f} s/MP in tiles of {cut}" for name, cut in row["tiles"].items()
        )
        times = f": {row['ratio']:.1f} times (target: >= {TARGET:g})" if "ratio" in row else ""
        print(f"x{row['scale']}, {row['side']} px, {row['precision']}: {rates}{times}")
    print(f"bfloat16 against float32, PSNR-Y: {loss}")


def race(models: dict[str, Any], side: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each precision: seconds per megapixel of each model at its best tiling, taking turns."""
    image = photo(side)
    cuts = [tile for tile in TILES if tile < side] + [side]
    best: dict[tuple[str, str], int] = {}
    for precision in PRECISIONS:
        for name, model in models.items():
            seconds(model, image, cuts[0], precision)
            best[name, precision] = min(cuts, key=lambda cut: seconds(model, image, cut, precision))
    times: dict[tuple[str, str], list[float]] = {entry: [] for entry in best}
    for _ in range(rounds):
        for (name, precision), cut in best.items():
            times[name, precision].append(seconds(models[name], image, cut, precision))
    rows = []
    for precision in PRECISIONS:
        rates = {name: median(times[name, precision]) / (side**2 / 1e6) for name in models}
        row = {"side": side, "precision": precision} | {name: round(rate, 2) for name, rate in rates.items()}
        row |= {"tiles": {name: best[name, precision] for name in models}}
        if "SwinIR-light" in rates:
            row["ratio"] = round(rates["SwinIR-light"] / next(iter(rates.values())), 2)
        rows.append(row)
    return rows


def networks(scale: int) -> dict[str, Any]:
    """Return the networks by name, the packaged one first."""
    return {f"sr-x{scale}": packaged(f"sr-x{scale}")} | swinir_light(scale)


def packaged(name: str) -> Any:
    from imgtx.models.weights import load_model

    return load_model(name).network


def swinir_light(scale: int) -> dict[str, Any]:
    """Return SwinIR-light by its name; nothing, with a printed hint, if spandrel is not installed."""
    from imgtx.errors import UsageError
    from imgtx.models.adapters.spandrel import import_spandrel

    try:
        import_spandrel()
    except UsageError as error:
        print(f"only sr-x{scale} is measured: {error}")
        return {}
    from spandrel.architectures.SwinIR import SwinIR

    return {"SwinIR-light": SwinIR(upscale=scale, **SWINIR_LIGHT).eval()}


def photo(side: int) -> Any:
    """Return a photo: (1, 3, side, side) float in [0, 1]."""
    import skimage.data
    import torch

    pixels = np.ascontiguousarray(skimage.data.astronaut()[:side, :side])
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def seconds(model: Any, image: Any, cut: int, precision: str) -> float:
    """Return the CPU seconds of one thread for the whole photo in tiles of `cut` pixels, one call a tile."""
    import torch

    side = image.shape[-1]
    tiles = [
        image[:, :, top : top + cut, left : left + cut].contiguous()
        for top in range(0, side, cut)
        for left in range(0, side, cut)
    ]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        started = time.process_time()
        for tile in tiles:
            model(tile)
        return time.process_time() - started


def bfloat16_loss() -> dict[str, float]:
    """Return the PSNR-Y of sr-x2 on three photos in both precisions, by the evaluation protocol."""
    import skimage.data

    import imgtx
    from imgtx.imageops.metrics import psnr_y
    from imgtx.imageops.resize import imresize, modcrop

    scores: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for name in ("astronaut", "coffee", "chelsea"):
        clean = modcrop(np.ascontiguousarray(getattr(skimage.data, name)()), 2)
        small = imresize(clean, 0.5)
        for precision, values in scores.items():
            values.append(psnr_y(imgtx.load("sr-x2", precision=precision)(small), clean, crop=2))
    means = {precision: round(float(np.mean(values)), 3) for precision, values in scores.items()}
    if "bfloat16" not in scores:
        return means
    return means | {"loss_db": round(float(np.mean(scores["float32"]) - np.mean(scores["bfloat16"])), 4)}


if __name__ == "__main__":
    main()
