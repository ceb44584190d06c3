"""Quality of models that restore, by the papers' protocols, beside what they have to beat.

    denoise   colour noise of sigma 15, 25, 50: floats, neither clipped nor rounded, the model blind to the strength
    jpeg      quality 10 to 40
    no-harm   clean pictures, and JPEG of quality 95: what comes out against what went in
    offsets   JPEG of quality 20 whose 8 x 8 blocks begin 0 to 7 pixels outside the picture
    holes     `jobs.evaluation.inpainting`

A row is a method under a condition, its numbers means over the dataset's images. A dataset is a folder, or a text file
of names among the folders beside it (CBSD68 lies within B100).
"""

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imgtx.errors import UsageError
from imgtx.imageops.metrics import psnr
from imgtx.inference.tiling import merge, split
from jobs.evaluation.baselines import STRENGTH, non_local_means
from jobs.evaluation.inpainting import hole_rows
from jobs.evaluation.report import ProtocolReport, Row, each
from jobs.evaluation.super_resolution import Dataset, check_writable, read_clean
from pipeline.models.resolve import local_model

if TYPE_CHECKING:
    from imgtx.inference.predictor import Predictor  # brings torch

MOST_SWEPT = 8  # images
SIGMAS = (15, 25, 50)
QUALITIES = (10, 20, 30, 40)
HARMLESS, SWEPT = 95, 20  # JPEG qualities
BLOCK = 8
INPUT = "input (control)"
NLM = "OpenCV fast NLM (control)"
TEXTS = {
    "denoise": "noise of numpy.random.seed(0) for each image, floats added to it, neither clipped nor rounded; output "
    "rounded to uint8; RGB PSNR on the whole image. Fast NLM gets the noisy image in 8 bits and is told the strength "
    f"(h = {STRENGTH} sigma)",
    "jpeg": "Pillow's JPEG, 4:2:0, blocks at the image's corner; RGB PSNR on the whole image; fast NLM is told the "
    "quality (h = 50 / quality)",
    "no-harm": "RGB PSNR of what comes out: of clean images to themselves, of JPEG of quality "
    f"{HARMLESS} to the clean image",
    "offsets": f"JPEG of quality {SWEPT} of the image mirrored outward by 0 to 7 pixels at the top and left, cut "
    f"again, of the first {MOST_SWEPT} images by name; RGB PSNR on the whole image",
    "holes": "masks of imgtx.degradations.holes, their generator seeded with the image's place among the dataset's names; PSNR, "
    "SSIM, L1 of the hole alone; spectrum: the energy of the Laplacian in the hole over the original's, 1 is as sharp",
}


def run_protocol(
    name: str,
    model: str | Path,
    datasets: Sequence[Dataset],
    *,
    out_json: Path | None = None,
    endpoint_url: str | None = None,
    self_ensemble: bool = False,
) -> ProtocolReport:
    """Measure `model` by the protocol `name`, a key of TEXTS; also written to `out_json`.

    `self_ensemble` as `imgtx.load` takes it. Raises UsageError for an unknown protocol, a model of another task, an
    image that is not 8-bit grey or RGB.
    """
    if out_json is not None:
        check_writable(out_json)
    import torch  # after the cheap checks

    import imgtx

    predictor = imgtx.load(local_model(str(model), endpoint_url), self_ensemble=self_ensemble)
    wanted = "inpainting" if name == "holes" else "restoration"
    if predictor.info.task != wanted:
        raise UsageError(
            f"evaluate --protocol {name} was given {model}, a model for {predictor.info.task}; legal are those for "
            f"{wanted}: `imgtx models list` shows them"
        )
    rows = [
        row
        for dataset in datasets
        for row in (
            hole_rows(predictor, dataset) if name == "holes" else level_rows(name, predictor, dataset)
        )
    ]
    report = ProtocolReport(
        model=predictor.info.name,
        digest=predictor.digest or "",
        protocol=name,
        text=TEXTS[name],
        device=str(predictor.device),
        precision=predictor.precision,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        rows=tuple(rows),
        self_ensemble=self_ensemble,
    )
    if out_json is not None:
        out_json.write_text(json.dumps(report.to_dict(), indent=1) + "\n")
    return report


def level_rows(name: str, predictor: "Predictor", dataset: Dataset) -> Iterator[Row]:
    """The rows of a protocol that compares whole pictures."""
    conditions = CONDITIONS[name]
    for condition, damage, control in conditions:
        scores: dict[str, list[float]] = {}
        spent, pixels = 0.0, 0
        files = dataset.files[:MOST_SWEPT] if name == "offsets" else dataset.files
        for path in each(files, f"{dataset.name} {condition}"):
            clean = rgb(read_clean(path, 1))
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
    """(H, W, 3) levels of 255, uint8 or floats beyond 0 and 255 -> uint8: cut, run and joined as `Predictor` does."""
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


def rgb(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def noisy(clean: np.ndarray, sigma: float) -> np.ndarray:
    """(H, W, 3) uint8 -> float64, as `numpy.random.seed(0)` and `numpy.random.normal` give the noise."""
    return clean + np.random.RandomState(0).normal(0, sigma, clean.shape)


def compressed(clean: np.ndarray, quality: int, offset: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 through a JPEG whose blocks begin `offset` pixels outside the image, at the top and left."""
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


# By protocol: what a condition is called, what it does to a clean image, how strong the control is (0: none).
CONDITIONS: dict[str, list[Condition]] = {
    "denoise": [_noise(sigma) for sigma in SIGMAS],
    "jpeg": [_jpeg(quality) for quality in QUALITIES],
    "no-harm": [
        ("clean", lambda clean: clean, 0),
        (f"quality {HARMLESS}", lambda clean: compressed(clean, HARMLESS), 0),
    ],
    "offsets": [_offset(offset) for offset in range(BLOCK)],
}
