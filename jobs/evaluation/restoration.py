"""Quality of models that restore, by the papers' protocols, beside the methods they have to beat.

    denoise   colour noise of sigma 15, 25, 50: floats, neither clipped nor rounded, the model blind to the strength
    jpeg      quality 10 to 40
    no-harm   clean images, and JPEG of quality 95: what comes out against what went in
    offsets   JPEG of quality 20 whose 8 x 8 blocks begin 0 to 7 pixels outside the image

A row is a method under a condition, its numbers means over the dataset's images. A dataset is a folder, or a text file
of names among the folders beside it (CBSD68 is a part of B100).
"""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from imgtx.imageops.metrics import psnr
from imgtx.inference.tiling import merge, split
from imgtx.models.info import ModelInfo
from jobs.evaluation.baselines import STRENGTH, non_local_means
from jobs.evaluation.datasets import Dataset, as_rgb, read_clean
from jobs.evaluation.protocol import Protocol, Quality, TaskEvaluation, measure_by
from jobs.evaluation.report import Row, with_progress
from pipeline.tasks.restoration import RESTORATION

if TYPE_CHECKING:
    # This imports torch.
    from imgtx.inference.predictor import Predictor

# Images.
MAX_SWEPT = 8
SIGMAS = (15, 25, 50)
QUALITIES = (10, 20, 30, 40)
# JPEG qualities.
HARMLESS, SWEPT = 95, 20
BLOCK = 8
INPUT = "input (control)"
NLM = "OpenCV fast NLM (control)"


def level_rows(name: str, predictor: "Predictor", dataset: Dataset) -> Iterator[Row]:
    """Measure by a protocol that compares whole images."""
    conditions = CONDITIONS[name]
    for condition, damage, control in conditions:
        scores: dict[str, list[float]] = {}
        spent, pixels = 0.0, 0
        files = dataset.files[:MAX_SWEPT] if name == "offsets" else dataset.files
        for path in with_progress(files, f"{dataset.name} {condition}"):
            clean = as_rgb(read_clean(path, 1))
            levels = damage(clean)
            if name != "no-harm" or condition != "clean":
                scores.setdefault(INPUT, []).append(psnr(levels, clean))
            started = time.perf_counter()
            output = restored(predictor, levels)
            spent, pixels = spent + time.perf_counter() - started, pixels + clean.shape[0] * clean.shape[1]
            scores.setdefault(predictor.info.name, []).append(psnr(output, clean))
            if control and (other := non_local_means(eight_bits(levels), control)) is not None:
                scores.setdefault(NLM, []).append(psnr(other, clean))
        for method, values in scores.items():
            seconds = spent / pixels * 1e6 if method == predictor.info.name else None
            means = {"psnr": fmean(values), "worst_psnr": min(values)}
            yield Row(dataset.name, condition, method, len(values), means, seconds)


def restored(predictor: "Predictor", levels: np.ndarray) -> np.ndarray:
    """Run (H, W, 3) levels of 255, uint8 or floats beyond 0 and 255, to uint8: tiled and merged as `Predictor` does."""
    if levels.dtype == np.uint8:
        return predictor(levels)
    import torch

    from imgtx.inference.channels import from_model, to_model

    cut = predictor.plan_for(*levels.shape[:2])
    made = []
    with torch.inference_mode():
        for tile in split(levels.astype(np.float32) / 255, cut):
            batch = to_model(torch.from_numpy(tile).permute(2, 0, 1)[None], predictor.info.in_channels)
            output = predictor.model(batch.to(predictor.device).contiguous(), None)
            made.append(from_model(output.float().cpu(), 3)[0].permute(1, 2, 0).numpy())
    return eight_bits(merge(np.stack(made), cut, 1) * 255)


def eight_bits(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def noisy(clean: np.ndarray, sigma: float) -> np.ndarray:
    """Add the noise of `numpy.random.seed(0)` and `numpy.random.normal`: (H, W, 3) uint8 to float64."""
    return clean + np.random.RandomState(0).normal(0, sigma, clean.shape)


def compressed(clean: np.ndarray, quality: int, offset: int = 0) -> np.ndarray:
    """Send (H, W, 3) uint8 through a JPEG whose blocks begin `offset` pixels outside, at the top and left."""
    data = io.BytesIO()
    grown = np.pad(clean, ((offset, 0), (offset, 0), (0, 0)), mode="symmetric")
    Image.fromarray(grown).save(data, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(data))[offset:, offset:]


Condition = tuple[str, Callable[[np.ndarray], np.ndarray], float]


def _noise(sigma: int) -> Condition:
    return f"sigma {sigma}", lambda clean: noisy(clean, sigma), STRENGTH * sigma


def _jpeg(quality: int) -> Condition:
    return f"quality {quality}", lambda clean: compressed(clean, quality), 50 / quality


def _offset(offset: int) -> Condition:
    return f"offset {offset}", lambda clean: compressed(clean, SWEPT, offset), 0


# By protocol: the name of a condition, what it does to a clean image, how strong the baseline is (0: none).
CONDITIONS: dict[str, list[Condition]] = {
    "denoise": [_noise(sigma) for sigma in SIGMAS],
    "jpeg": [_jpeg(quality) for quality in QUALITIES],
    "no-harm": [
        ("clean", lambda clean: clean, 0),
        (f"quality {HARMLESS}", lambda clean: compressed(clean, HARMLESS), 0),
    ],
    "offsets": [_offset(offset) for offset in range(BLOCK)],
}


def measure_quality(weights: Path, info: ModelInfo, benchmarks: Sequence[Path], degradation: str) -> Quality:
    """Measure weights for their card."""
    return measure_by(PROTOCOLS, weights, info, benchmarks)[0]


def _protocol(name: str, text: str, *datasets: str, **options: Any) -> Protocol:
    return Protocol(name, RESTORATION.name, text, partial(level_rows, name), datasets, **options)


# Published rows: CBM3D, DnCNN and SwinIR as in Liang et al. 2021, arXiv 2108.10257, its supplement and code; PromptIR:
# Potlapalli et al. 2023, arXiv 2306.13090.
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        _protocol(
            "denoise",
            "noise of numpy.random.seed(0) for each image, floats added to it, neither clipped nor rounded; output "
            "rounded to uint8; RGB PSNR on the whole image. Fast NLM gets the noisy image in 8 bits and is given the "
            f"strength (h = {STRENGTH} sigma)",
            "cbsd68",
            "kodak24",
            published={
                ("cbsd68", "sigma 15"): {"CBM3D": 33.52, "DnCNN": 33.90, "PromptIR": 33.98, "SwinIR": 34.42},
                ("cbsd68", "sigma 25"): {"CBM3D": 30.71, "DnCNN": 31.24, "PromptIR": 31.31, "SwinIR": 31.78},
                ("cbsd68", "sigma 50"): {"CBM3D": 27.38, "DnCNN": 27.95, "PromptIR": 28.06, "SwinIR": 28.56},
            },
        ),
        _protocol(
            "jpeg",
            "Pillow's JPEG, 4:2:0, blocks at the image's corner; RGB PSNR on the whole image; fast NLM is given the "
            "quality (h = 50 / quality)",
            "live1",
            published={
                ("live1", "quality 10"): {"SwinIR": 28.06},
                ("live1", "quality 20"): {"SwinIR": 30.45},
                ("live1", "quality 30"): {"SwinIR": 31.82},
                ("live1", "quality 40"): {"SwinIR": 32.75},
            },
        ),
        _protocol(
            "no-harm",
            "RGB PSNR of what comes out: of clean images to themselves, of JPEG of quality "
            f"{HARMLESS} to the clean image",
            "live1",
            in_metrics=False,
        ),
        _protocol(
            "offsets",
            f"JPEG of quality {SWEPT} of the image mirrored outward by 0 to 7 pixels at the top and left, cut "
            f"again, of the first {MAX_SWEPT} images by name; RGB PSNR on the whole image",
            "live1",
            in_metrics=False,
        ),
    )
}
TASK = TaskEvaluation(RESTORATION.name, "Restoration at the same size", measure_quality)
