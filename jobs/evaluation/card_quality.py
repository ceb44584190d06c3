"""The quality that a model card tells: which protocols a task is measured by, as a table in Markdown and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgtx.models.info import ModelInfo
from jobs.evaluation.report import ProtocolReport
from jobs.evaluation.restoration import run_protocol
from jobs.evaluation.super_resolution import Dataset, evaluate, find_datasets

# Protocols by task, and the datasets of their papers: where none of them is given, all that are.
PROTOCOLS: dict[str, dict[str, tuple[str, ...]]] = {
    "restoration": {
        "denoise": ("cbsd68", "kodak24"),
        "jpeg": ("live1",),
        "no-harm": ("live1",),
        "offsets": ("live1",),
    },
    "inpainting": {"holes": ("kodak24",)},
}


@dataclass(frozen=True)
class Quality:
    """`text` is the card's section, `values` the JSON beside it, `metrics` the few numbers that weights carry: dB."""

    text: str
    values: dict[str, Any]
    metrics: dict[str, float]


def measure_quality(weights: Path, info: ModelInfo, benchmarks: Sequence[Path], degradation: str) -> Quality:
    """Measure by the task's protocols; raises as `evaluate` and `run_protocol`."""
    if info.task not in PROTOCOLS:
        return _enlarging(weights, info, benchmarks, degradation)
    found = find_datasets(benchmarks)
    reports = [
        run_protocol(name, weights, _chosen(found, wanted)) for name, wanted in PROTOCOLS[info.task].items()
    ]
    return Quality(
        "\n".join(_section(info, report) for report in reports),
        {report.protocol: report.to_dict() for report in reports},
        {
            f"{row.dataset} {row.condition}": round(row.means["psnr"], 3)
            for report in reports
            for row in report.rows
            if row.method == info.name and report.protocol in ("denoise", "jpeg", "holes")
        },
    )


def _chosen(found: Sequence[Dataset], wanted: tuple[str, ...]) -> Sequence[Dataset]:
    return [dataset for dataset in found if dataset.name.casefold() in wanted] or found


def _section(info: ModelInfo, report: ProtocolReport) -> str:
    names = [*report.rows[0].means]
    lines = [
        f"By `imgtx evaluate {info.name} DATASETS --protocol {report.protocol}`:\n",
        f"| dataset | condition | method | {' | '.join(names)} |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for row in report.rows:
        digits = {name: 4 if name == "ssim" else 2 for name in names}
        values = " | ".join(f"{row.means[name]:.{digits[name]}f}" for name in names)
        lines.append(f"| {row.dataset} | {row.condition} | {row.method} | {values} |")
    return "\n".join(lines) + f"\n\nProtocol: {report.text}.\n"


def _enlarging(weights: Path, info: ModelInfo, benchmarks: Sequence[Path], degradation: str) -> Quality:
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
