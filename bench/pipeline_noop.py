"""Measure images per second of the whole pipeline when the model costs almost nothing, beside a bare pool.

    python -m bench.pipeline_noop [--images 2000]

2,000 PNG of 256 x 256, x2, written as PNG. The model is the smallest possible (one encoder and one decoder block of
width 8, two channels of detail); its own time is measured too. The rest is listing, Ray, decode, encode and the ledger.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from bench.efficiency import bare, pipeline
from bench.report import save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        folder = Path(name)
        small_files(folder / "in", options.images)
        model = smallest_model(folder / "smallest.safetensors")
        seconds = {"pipeline": pipeline(folder / "in", folder / "out", str(model))}
        seconds["bare"] = bare(folder / "in", folder / "bare", str(model))
        values = {
            "images": options.images,
            "images_per_second": {name: round(options.images / s, 1) for name, s in seconds.items()},
            "ratio": round(seconds["bare"] / seconds["pipeline"], 3),
            "model_seconds_per_image": round(model_seconds(model), 4),
        }
    save("pipeline_noop", values)
    print(values)


def small_files(folder: Path, count: int) -> None:
    """Write PNG crops of 256 x 256 from real photos."""
    import skimage.data

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    photos = [np.asarray(getattr(skimage.data, name)()) for name in ("astronaut", "coffee", "retina")]
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (int(rng.integers(0, side - 255)) for side in photo.shape[:2])
        crop = photo[top : top + 256, left : left + 256]
        Image.fromarray(crop).save(folder / f"{number:05}.png", compress_level=1)


def smallest_model(path: Path) -> Path:
    from imgtx.models.config import ModelConfig
    from imgtx.models.info import ModelInfo
    from imgtx.models.transformer import EncoderDecoder
    from imgtx.models.weights import save_weights

    config = ModelConfig(
        dim=8, heads=1, encoder_blocks=1, decoder_blocks=1, ffn_ratio=1.0, detail_channels=2, detail_blocks=1
    )
    info = ModelInfo(name="smallest", task="super-resolution", scale=2, multiple=config.multiple, halo=32)
    save_weights(path, EncoderDecoder(config), info)
    return path


def model_seconds(model: Path) -> float:
    """Return the seconds of the model itself for one of these images, in one thread."""
    import time

    import torch

    import imgtx

    torch.set_num_threads(1)
    predictor = imgtx.load(model)
    image = np.zeros((256, 256, 3), np.uint8)
    predictor(image)
    started = time.perf_counter()
    for _ in range(10):
        predictor(image)
    return (time.perf_counter() - started) / 10


if __name__ == "__main__":
    main()
