"""The protocol for holes: masks of three kinds by fixed seeds, on squares from the middle and on whole pictures."""

import time
from collections.abc import Iterator
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from imgtx.degradations.holes import KINDS, random_mask
from imgtx.imageops.holes import with_mask
from imgtx.imageops.metrics import hole_scores
from jobs.evaluation.baselines import Filler, fillers
from jobs.evaluation.report import Row, each
from jobs.evaluation.super_resolution import Dataset, read_clean

if TYPE_CHECKING:
    from imgtx.inference.predictor import Predictor  # brings torch

SQUARE = 256
SIZES = (f"{SQUARE} px", "whole")
FILL = "imgtx's fill (control)"  # what the model begins with


def hole_rows(predictor: "Predictor", dataset: Dataset) -> Iterator[Row]:
    """Rows of the model, of what it begins with and of the controls, by size and kind of mask."""
    methods: dict[str, Filler] = {
        predictor.info.name: predictor,
        FILL: lambda image, hole: with_mask(image, hole)[..., :3],
    }
    methods |= {f"{name} (control)": work for name, work in fillers().items()}
    for size in SIZES:
        for kind in KINDS:
            scores: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
            spent, pixels = dict.fromkeys(methods, 0.0), 0
            for number, path in each([*enumerate(dataset.files)], f"{dataset.name} {size} {kind}"):
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
    """A clean image or the square in its middle, (H, W, 3) uint8; its hole; itself with the hole black."""
    clean = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    if not whole:
        top, left = (max(0, (side - SQUARE) // 2) for side in clean.shape[:2])
        clean = np.ascontiguousarray(clean[top : top + SQUARE, left : left + SQUARE])
    hole = random_mask(np.random.default_rng(seed), clean.shape[0], clean.shape[1], kind)
    return clean, hole, np.where(hole[..., None], 0, clean).astype(np.uint8)
