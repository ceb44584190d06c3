"""Measure CPU seconds per megapixel of restore, inpaint, sr-x2, DnCNN and SwinIR, in one run.

    python -m bench.restore_speed [--side 256] [--rounds 3]

The packaged models have the shapes of jobs/specs; DnCNN (colour, blind, 20 layers) and SwinIR (denoising, 11.5 million
parameters) are spandrel's with their papers' settings. All weights are random: time does not depend on them. As in
`bench.model_speed`, networks run in one thread with the workers' allocator settings and take turns, each with its
fastest tiles, and results are medians.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from bench.model_speed import PRECISIONS, TILES, packaged, photo, seconds
from bench.report import save
from pipeline.cluster.environment import WORKER_ENVIRONMENT

# Times sr-x2, per input megapixel.
LIMIT = 1.5
SWINIR = {
    "upscale": 1, "img_size": 128, "window_size": 8, "img_range": 1.0, "depths": [6] * 6, "embed_dim": 180,
    "num_heads": [6] * 6, "mlp_ratio": 2, "upsampler": "", "resi_connection": "1conv",
}  # fmt: skip
DNCNN = {"in_nc": 3, "out_nc": 3, "nc": 64, "nb": 20, "act_mode": "R"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # glibc reads these variables when a process starts.
    if os.environ.get("MALLOC_TOP_PAD_") is None:
        command = [sys.executable, "-m", "bench.restore_speed", *sys.argv[1:]]
        raise SystemExit(subprocess.run(command, env=os.environ | WORKER_ENVIRONMENT, check=False).returncode)
    import torch

    torch.set_num_threads(1)
    models = {
        "sr-x2": packaged("sr-x2"),
        "restore": from_spec("restore"),
        "inpaint": from_spec("inpaint"),
    } | published()
    rows = race(models, options.side, options.rounds)
    save("restore_speed", {"side": options.side, "rounds": options.rounds, "rows": rows, "limit": LIMIT})
    for row in rows:
        print(
            f"{row['network']}, {row['precision']}: {row['seconds_per_megapixel']:.2f} s/MP in tiles of "
            f"{row['tile']}, {row['times_sr_x2']:.2f} times sr-x2"
        )


def race(models: dict[str, Any], side: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each network and precision; they take turns at their best tiling."""
    image = photo(side)
    cuts = [tile for tile in TILES if tile < side] + [side]
    best = {}
    for precision in PRECISIONS:
        for name, model in models.items():
            seconds(model, image, cuts[0], precision)
            best[name, precision] = min(cuts, key=lambda cut: seconds(model, image, cut, precision))
    times: dict[tuple[str, str], list[float]] = {entry: [] for entry in best}
    for _ in range(rounds):
        for (name, precision), cut in best.items():
            times[name, precision].append(seconds(models[name], image, cut, precision))
    return [
        {
            "network": name,
            "precision": precision,
            "tile": best[name, precision],
            "seconds_per_megapixel": round(median(taken) / (side**2 / 1e6), 3),
            "times_sr_x2": round(median(taken) / median(times["sr-x2", precision]), 3),
        }
        for (name, precision), taken in times.items()
    ]


def from_spec(name: str) -> Any:
    """Return the network of a training spec; one for holes gets a mask that covers everything."""
    import torch

    from imgtx.models.transformer import EncoderDecoder
    from imgtx.training.spec import load_train_spec

    folder = Path(__file__).parents[1] / "jobs" / "specs"
    network = EncoderDecoder(load_train_spec(folder / f"{name}.toml", folders=False).config).eval()
    if not network.config.holes:
        return network
    return lambda tile: network(torch.cat([tile, torch.ones_like(tile[:, :1])], 1))


def published() -> dict[str, Any]:
    """Return spandrel's networks; nothing, with a printed hint, if it is not installed."""
    from imgtx.errors import UsageError
    from imgtx.models.adapters.spandrel import import_spandrel

    try:
        import_spandrel()
    except UsageError as error:
        print(f"only the packaged models are measured: {error}")
        return {}
    from spandrel.architectures.DnCNN import DnCNN
    from spandrel.architectures.SwinIR import SwinIR

    return {"DnCNN": DnCNN(**DNCNN).eval(), "SwinIR": SwinIR(**SWINIR).eval()}


if __name__ == "__main__":
    main()
