"""The protocol for holes: masks of three kinds by fixed seeds, on squares from the middle and on whole images."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from imgtx.degradations.holes import KINDS, random_mask
from imgtx.imageops.holes import with_mask
from imgtx.imageops.metrics import hole_scores
from imgtx.models.info import ModelInfo
from jobs.evaluation.baselines import Filler, fillers
from jobs.evaluation.datasets import Dataset, as_rgb, read_clean
from jobs.evaluation.protocol import Protocol, Quality, TaskEvaluation, measure_by
from jobs.evaluation.report import ProtocolReport, Row, with_progress
from pipeline.tasks.inpainting import INPAINTING

if TYPE_CHECKING:
    # This imports torch.
    from imgtx.inference.predictor import Predictor

SQUARE = 256
SIZES = (f"{SQUARE} px", "whole")
# The smooth fill that the model starts from.
FILL = "imgtx's fill (control)"


def hole_rows(predictor: "Predictor", dataset: Dataset) -> Iterator[Row]:
    """Measure the model, the fill it starts from and the baselines, by size and kind of mask."""
    methods: dict[str, Filler] = {
        predictor.info.name: predictor,
        FILL: lambda image, hole: with_mask(image, hole)[..., :3],
    }
    methods |= {f"{name} (control)": work for name, work in fillers().items()}
    for size in SIZES:
        for kind in KINDS:
            scores: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
            spent, pixels = dict.fromkeys(methods, 0.0), 0
            numbered = [*enumerate(dataset.files)]
            for number, path in with_progress(numbered, f"{dataset.name} {size} {kind}"):
                clean, hole, damaged = damaged_by(read_clean(path, 1), kind, number, whole=size != SIZES[0])
                pixels += hole.size
                for name, work in methods.items():
                    started = time.perf_counter()
                    output = work(damaged, hole)
                    spent[name] += time.perf_counter() - started
                    scores[name].append(hole_scores(output, clean, hole))
            for name, found in scores.items():
                means = {key: fmean(score[key] for score in found) for key in found[0]}
                yield Row(dataset.name, f"{size} {kind}", name, len(found), means, spent[name] / pixels * 1e6)


def damaged_by(
    pixels: np.ndarray, kind: str, seed: int, *, whole: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a clean image or the square in its middle, (H, W, 3) uint8; its hole; itself with the hole black."""
    clean = as_rgb(pixels)
    if not whole:
        top, left = (max(0, (side - SQUARE) // 2) for side in clean.shape[:2])
        clean = np.ascontiguousarray(clean[top : top + SQUARE, left : left + SQUARE])
    hole = random_mask(np.random.default_rng(seed), clean.shape[0], clean.shape[1], kind)
    return clean, hole, np.where(hole[..., None], 0, clean).astype(np.uint8)


def measure_quality(weights: Path, info: ModelInfo, benchmarks: Sequence[Path], degradation: str) -> Quality:
    """Measure weights for their card, which says first what they gain over the fill they start from."""
    quality, (report,) = measure_by(PROTOCOLS, weights, info, benchmarks)
    return Quality(quality.text, quality.values, quality.metrics, gain_over_fill(report))


def gain_over_fill(report: ProtocolReport) -> str:
    """Return the gain in dB by kind of hole, on the first dataset's squares, as a sentence."""
    dataset = report.rows[0].dataset
    psnr = {(row.condition, row.method): row.means["psnr"] for row in report.rows if row.dataset == dataset}
    gains = ", ".join(
        f"{kind} {psnr[f'{SIZES[0]} {kind}', report.model] - psnr[f'{SIZES[0]} {kind}', FILL]:+.2f} dB"
        for kind in KINDS
    )
    return f"Gain over that fill in the hole ({dataset}, {SIZES[0]}): {gains}."


PROTOCOLS = {
    "holes": Protocol(
        "holes",
        INPAINTING.name,
        "masks of imgtx.degradations.holes, their generator seeded with the image's place among the dataset's names; "
        "PSNR, SSIM, L1 of the hole alone; spectrum: the energy of the Laplacian in the hole over the original's, 1 is "
        "as sharp",
        hole_rows,
        ("kodak24",),
    )
}
TASK = TaskEvaluation(INPAINTING.name, "Inpainting", measure_quality)
