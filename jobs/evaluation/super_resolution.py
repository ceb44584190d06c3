"""Quality by the papers' protocol: super-resolution against clean images, beside bicubic and published rows.

Notable choices: the low-resolution input is uint8 made by MATLAB's `imresize`; the model runs through
`imgtx.load`, the same path as production; bicubic goes through every step as the control row, so that a
mistake in the protocol shows in a number that is known; one untimed call comes before the clock starts.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from imgtx.codecs import read_header
from imgtx.degradations import DEGRADATIONS
from imgtx.errors import ImageError, ImgtxError, UsageError
from imgtx.imageops.metrics import psnr_y, ssim_y
from imgtx.imageops.resize import imresize
from imgtx.inference.processor import this_processor
from imgtx.models.info import ModelInfo
from jobs.evaluation.datasets import Dataset, as_rgb, check_writable, find_datasets, read_clean
from jobs.evaluation.protocol import Quality, TaskEvaluation
from jobs.evaluation.report import conditions
from pipeline.models.resolve import local_model
from pipeline.tasks.super_resolution import SUPER_RESOLUTION

# (h, w, C) uint8 -> (scale h, scale w, C) uint8, with C 1 or 3
Upscaler = Callable[[np.ndarray], np.ndarray]

PROTOCOL = (
    "clean image cut to multiples of {scale}, {degraded} and upscaled to uint8; PSNR and SSIM on BT.601 luma as "
    "float (a grey image as it is), peak 255, {scale} border pixels cropped, mean over images; seconds per "
    "megapixel of the small input, after one untimed call"
)
# Printed for bicubic reduction, never measured here; PSNR-Y in dB by scale, model and dataset. Bicubic and both
# SwinIR: Liang et al. 2021, arXiv 2108.10257; EDSR-baseline: Lim et al. 2017, arXiv 1707.02921.
PUBLISHED: dict[int, dict[str, dict[str, float]]] = {
    2: {
        "bicubic": {"set5": 33.66, "set14": 30.24, "b100": 29.56, "urban100": 26.88},
        "EDSR-baseline": {"set5": 38.0},
        "SwinIR-light": {"set5": 38.14, "set14": 33.86, "b100": 32.31, "urban100": 32.76},
        "SwinIR": {"set5": 38.42, "set14": 34.46, "b100": 32.53, "urban100": 33.81},
    },
    3: {
        "bicubic": {"set5": 30.39},
        "SwinIR-light": {"set5": 34.62, "set14": 30.54, "b100": 29.20, "urban100": 28.66},
    },
    4: {
        "bicubic": {"set5": 28.42, "set14": 26.00, "b100": 25.96, "urban100": 23.14},
        "EDSR-baseline": {"set5": 32.09, "set14": 28.58, "b100": 27.57, "urban100": 26.04},
        "SwinIR-light": {"set5": 32.44, "set14": 28.77, "b100": 27.69, "urban100": 26.47},
        "SwinIR": {"set5": 32.92, "set14": 29.09, "b100": 27.92, "urban100": 27.45},
    },
}
# `imgtx evaluate --degradation NAME`: how a clean image becomes the model's input.
PROTOCOLS = {name: kind for name, kind in DEGRADATIONS.items() if kind.protocol}
_SSIM_WINDOW = 11


@dataclass(frozen=True)
class ImageScore:
    """One image: sides of the small input in pixels, model and bicubic against clean, model time."""

    name: str
    height: int
    width: int
    psnr_y: float
    ssim_y: float
    bicubic_psnr_y: float
    bicubic_ssim_y: float
    seconds: float


@dataclass(frozen=True)
class DatasetScore:
    """The images of one dataset and their means."""

    name: str
    images: tuple[ImageScore, ...]

    def mean(self, value: str) -> float:
        """Mean over images of a field of ImageScore."""
        return fmean(getattr(image, value) for image in self.images)

    @property
    def seconds_per_megapixel(self) -> float:
        """Of input, over all images together."""
        pixels = sum(image.height * image.width for image in self.images)
        return sum(image.seconds for image in self.images) / (pixels / 1e6)


@dataclass(frozen=True)
class Report:
    """What an evaluation found and under which conditions it can be repeated."""

    model: str
    digest: str
    scale: int
    degradation: str
    protocol: str
    datasets: tuple[DatasetScore, ...]
    device: str
    precision: str
    torch: str
    threads: int
    processor: str
    self_ensemble: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON; the infinite PSNR of equal images becomes None."""
        values = asdict(self) | {"datasets": []}
        for dataset in self.datasets:
            means = {
                name: _finite(dataset.mean(name))
                for name in ("psnr_y", "ssim_y", "bicubic_psnr_y", "bicubic_ssim_y")
            }
            means["seconds_per_megapixel"] = dataset.seconds_per_megapixel
            images = [{k: _finite(v) for k, v in asdict(image).items()} for image in dataset.images]
            values["datasets"].append({"name": dataset.name, "means": means, "images": images})
        return values


def evaluate(
    model: str | Path,
    datasets: Sequence[Path],
    *,
    out_json: Path | None = None,
    endpoint_url: str | None = None,
    degradation: str = "bicubic",
    self_ensemble: bool = False,
    precision: str | None = None,
) -> Report:
    """Score a super-resolution model for `imgtx evaluate MODEL DATASET...`; `print_report` shows the result.

    Args:
        model: a packaged name, a weight file, or any other reference (`pipeline.models.references`).
        datasets: folders of clean images, or folders of such folders.
        out_json: also write `Report.to_dict()` there.
        endpoint_url: of a model on S3.
        degradation: one of PROTOCOLS.
        self_ensemble, precision: as `imgtx.load` takes them.

    Raises:
        UsageError: unknown model, a model of another task, a folder without images, an image that is not
            8-bit grey or RGB or is too small for the scale. All before the model runs on the first image.
    """
    found = find_datasets(datasets)
    if out_json is not None:
        check_writable(out_json)
    # Imported after the cheap checks: a mistyped folder is reported at once.
    import torch

    import imgtx

    weights = local_model(str(model), endpoint_url)
    predictor = imgtx.load(weights, self_ensemble=self_ensemble, precision=precision)
    info = predictor.info
    if info.task != TASK.task:
        raise UsageError(
            f"evaluate was given {model}, a model for {info.task}: expected one for {TASK.task} (imgtx models list "
            "shows them), or give --protocol"
        )
    scores = score(predictor, info.scale, found, degradation)
    report = Report(
        model=info.name,
        digest=predictor.digest or "",
        scale=info.scale,
        degradation=degradation,
        protocol=PROTOCOL.format(scale=info.scale, degraded=PROTOCOLS[degradation].protocol),
        datasets=scores,
        device=str(predictor.device),
        precision=predictor.precision,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        processor=str(this_processor()),
        self_ensemble=self_ensemble,
    )
    if out_json is not None:
        out_json.write_text(json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n")
    return report


def score(
    predictor: Upscaler, scale: int, datasets: Sequence[Dataset], degradation: str = "bicubic"
) -> tuple[DatasetScore, ...]:
    """Run the protocol with any callable that upscales by `scale`; progress on a terminal's standard error.

    Args:
        predictor: (h, w, C) uint8 -> (scale h, scale w, C) uint8, C 1 or 3 as in the file.
        scale: the predictor's factor.
        datasets: what `find_datasets` returned.

    Raises:
        UsageError: an image that the protocol cannot take.
        ImgtxError: the predictor returned another shape or dtype.
    """
    for dataset in datasets:
        for path in dataset.files:
            _check_image(path, scale)
    kind = PROTOCOLS[degradation]
    predictor(imresize(read_clean(datasets[0].files[0], scale), 1 / scale))
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("evaluate", total=sum(len(dataset.files) for dataset in datasets))
        scores = []
        for dataset in datasets:
            progress.update(bar, description=dataset.name)
            images = []
            for number, path in enumerate(dataset.files):
                clean = read_clean(path, scale)
                if not kind.grey:
                    clean = as_rgb(clean)
                small, _ = kind.pair(clean, scale, np.random.default_rng(number))
                images.append(_score_image(predictor, scale, path, clean, small))
                progress.advance(bar)
            scores.append(DatasetScore(dataset.name, tuple(images)))
    return tuple(scores)


def print_report(report: Report, console: Console) -> None:
    """Print the model beside its control and the published rows, by dataset, then the protocol."""
    table = Table(
        title=f"{report.model} x{report.scale}, {report.degradation} reduction", title_justify="left"
    )
    for heading in ("dataset", "images", "method"):
        table.add_column(heading, no_wrap=True)
    for heading in ("PSNR-Y", "SSIM-Y", "s/MP"):
        table.add_column(heading, justify="right")
    # The papers' mark for a self-ensemble.
    method = report.model + "+" * report.self_ensemble
    for dataset in report.datasets:
        own = _cells(dataset, ""), f"{dataset.seconds_per_megapixel:.2f}"
        table.add_row(dataset.name, str(len(dataset.images)), method, *own[0], own[1], style="bold")
        table.add_row("", "", "bicubic (control)", *_cells(dataset, "bicubic_"), "")
        for name, row in PUBLISHED.get(report.scale, {}).items():
            if report.degradation == "bicubic" and dataset.name.casefold() in row:
                cells = f"{row[dataset.name.casefold()]:.2f}", "", ""
                table.add_row("", "", f"{name} (published)", *cells, style="dim")
        table.add_section()
    console.print(table)
    console.print(f"Protocol: {report.protocol}.", highlight=False)
    if any(dataset.name.casefold() == "set14" for dataset in report.datasets):
        console.print(
            "Set14 holds one grey image: published rows of networks take it as RGB, worth 0.09 dB there.",
            highlight=False,
        )
    console.print(conditions(report), highlight=False)


def _cells(dataset: DatasetScore, prefix: str) -> tuple[str, str]:
    return f"{dataset.mean(prefix + 'psnr_y'):.2f}", f"{dataset.mean(prefix + 'ssim_y'):.4f}"


def _check_image(path: Path, scale: int) -> None:
    """Refuse from the header what the protocol cannot take, before any image costs model time."""
    try:
        header = read_header(path.read_bytes())
    except ImageError as error:
        raise UsageError(f"{path} cannot be read ({error}): repair it or take it out") from error
    if header.depth != 8 or header.alpha:
        kind = f"{header.depth} bits a channel{' and transparency' if header.alpha else ''}"
        raise UsageError(
            f"{path} has {kind}: the protocol takes 8-bit grey or RGB; convert it or take it out"
        )
    needed = scale * math.ceil((_SSIM_WINDOW + 2 * scale) / scale)
    if min(header.height, header.width) < needed:
        raise UsageError(
            f"{path} is {header.height}x{header.width}: expected {needed}x{needed} or more at scale {scale}, so that "
            f"one SSIM window remains; take it out"
        )


def _score_image(
    predictor: Upscaler, scale: int, path: Path, clean: np.ndarray, small: np.ndarray
) -> ImageScore:
    start = time.perf_counter()
    output = predictor(small)
    seconds = time.perf_counter() - start
    if output.shape != clean.shape or output.dtype != np.uint8:
        raise ImgtxError(
            f"the model returned {output.shape} {output.dtype} for {path}: expected {clean.shape} uint8; its info is "
            f"wrong, write the weights again"
        )
    control = imresize(small, scale)
    return ImageScore(
        name=path.name,
        height=small.shape[0],
        width=small.shape[1],
        psnr_y=psnr_y(output, clean, crop=scale),
        ssim_y=ssim_y(output, clean, crop=scale),
        bicubic_psnr_y=psnr_y(control, clean, crop=scale),
        bicubic_ssim_y=ssim_y(control, clean, crop=scale),
        seconds=seconds,
    )


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def measure_quality(weights: Path, info: ModelInfo, benchmarks: Sequence[Path], degradation: str) -> Quality:
    """Measure weights for their card; raises as `evaluate`."""
    report = evaluate(weights, benchmarks, degradation=degradation)
    option = "" if degradation == "bicubic" else f" --degradation {degradation}"
    rows = "\n".join(
        f"| {d.name} | {len(d.images)} | {d.mean('psnr_y'):.2f} | {d.mean('bicubic_psnr_y'):.2f} "
        f"| {d.mean('ssim_y'):.4f} | {d.mean('bicubic_ssim_y'):.4f} |"
        for d in report.datasets
    )
    text = f"""PSNR-Y in dB and SSIM-Y by `imgtx evaluate {info.name} DATASETS{option}`:

| dataset | images | PSNR-Y | bicubic | SSIM-Y | bicubic |
|---|---|---|---|---|---|
{rows}

Protocol: {report.protocol}.
"""
    return Quality(text, report.to_dict(), {d.name: round(d.mean("psnr_y"), 3) for d in report.datasets})


TASK = TaskEvaluation(SUPER_RESOLUTION.name, "Super-resolution x{scale}", measure_quality)
