"""Compare shapes of the network: each trained from scratch on the same photos and crops, for the same CPU time.

    python -m bench.preset_race [--minutes 4] [--precision float32] [--spec SPEC.toml] [--folder runs/race]

Minutes are of one CPU core (`imgtx.training.loop.clock_of`), so that a larger shape makes fewer steps. The first two
are one shape from two seeds: smaller differences than theirs are noise. After an interruption the same command
continues. Needs the training photos that the spec names.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import imgtx
from bench.report import save
from imgtx.inference.processor import this_processor
from imgtx.training.log import TrainingLog
from imgtx.training.loop import train
from imgtx.training.spec import TrainSpec, load_train_spec
from imgtx.training.state import Training

# Changes to the defaults of `imgtx.models.config.ModelConfig`: post-norm, patch 2, width 96, blocks 4 + 2, FFN 2.
PRESETS: dict[str, dict[str, Any]] = {
    "the preset": {},
    "the preset, another seed": {},
    "pre-norm": {"norm": "pre"},
    "res-post-norm": {"norm": "res-post"},
    "patch 1, width 48": {"patch": 1, "dim": 48, "heads": 3},
    "width 144, blocks 2 + 1": {"dim": 144, "heads": 3, "encoder_blocks": 2, "decoder_blocks": 1},
    "width 64, blocks 8 + 3": {"dim": 64, "heads": 2, "encoder_blocks": 8, "decoder_blocks": 3},
    "FFN 4": {"ffn_ratio": 4.0},
    "FFN with 5 x 5 depthwise": {"ffn_kernel": 5},
}
# Pixels of the tile that inference is timed on.
SIDE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--precision", default="bfloat16", help="of training; bfloat16 pays with AMX")
    parser.add_argument("--spec", type=Path, default=Path("jobs/specs/sr-x2-begin.toml"))
    parser.add_argument("--folder", type=Path, default=Path("runs/race"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = replace(
        load_train_spec(options.spec),
        init_from="",
        steps=0,
        minutes=options.minutes,
        peak_lr=1e-3,
        precision=options.precision,
    )
    rows = [
        race(replace(base, model=model, seed=1 + ("seed" in name)), options.folder / str(number))
        | {"preset": name}
        for number, (name, model) in enumerate(PRESETS.items())
    ]
    race_of = {"spec": options.spec.name, "minutes": options.minutes, "precision": options.precision}
    save("preset_race", race_of | {"presets": rows})
    print(json.dumps(rows, indent=1))


def race(spec: TrainSpec, folder: Path) -> dict[str, Any]:
    """Train to the end; return validation PSNR-Y in dB, parameters, steps, CPU seconds per input megapixel."""
    # Validate at the end only.
    spec = replace(spec, validate_minutes=2 * spec.minutes)
    folder.mkdir(parents=True, exist_ok=True)
    with TrainingLog(folder, spec.loss) as record:
        weights = train(spec, folder, record)
    training = Training(spec, folder)
    return {
        "valid_psnr_y": round(training.progress.history[-1]["valid_psnr_y"], 3),
        "steps": training.progress.step,
        "parameters": sum(p.numel() for p in training.network.parameters()),
        "cpu_seconds_a_megapixel": round(inference(weights), 1),
    }


def inference(weights: Path) -> float:
    """Return CPU seconds per input megapixel, the median of three; in bfloat16 where the processor has it."""
    precision = "float32" if "bfloat16" in this_processor().emulated else "bfloat16"
    predict = imgtx.load(str(weights), device="cpu", precision=precision)
    tile = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        predict(tile)
        seconds.append(time.process_time() - began)
    return median(seconds) / (SIDE * SIDE / 1e6)


if __name__ == "__main__":
    main()
