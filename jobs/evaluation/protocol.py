"""What a protocol is, how one is run, and what a task's model card says of quality."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgtx.errors import UsageError
from imgtx.inference.processor import this_processor
from imgtx.models.info import ModelInfo
from jobs.evaluation.datasets import Dataset, check_writable, find_datasets
from jobs.evaluation.report import ProtocolReport, Published, Row
from pipeline.models.resolve import local_model


@dataclass(frozen=True)
class Protocol:
    """One way to measure the models of a task: `imgtx evaluate --protocol NAME`.

    `text` describes it under every table; `rows` measures one dataset: the model and its baselines. `datasets` are
    those of the papers: of the datasets given for a model card these are taken, or all where none of them is given.
    `published` was printed in the papers and never measured here. `in_metrics` says whether the weights carry its dB.
    `own_datasets` names what the protocol makes itself, so that no dataset is given.
    `inputs`: what one measurement takes; where that is more than images, `rows` gets a dataset for each. `find`: from
    folders to datasets.
    """

    name: str
    task: str
    text: str
    rows: Callable[..., Iterator[Row]]
    datasets: tuple[str, ...]
    published: Published = field(default_factory=dict)
    in_metrics: bool = True
    own_datasets: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("images",)
    find: Callable[[Sequence[Path]], tuple[Dataset, ...]] = find_datasets


@dataclass(frozen=True)
class Quality:
    """What a model card says of quality.

    `text` is the card's section in Markdown, `values` the JSON beside it, `metrics` the few numbers that weights carry,
    in dB; `summary` follows the card's first line.
    """

    text: str
    values: dict[str, Any]
    metrics: dict[str, float]
    summary: str = ""


@dataclass(frozen=True)
class TaskEvaluation:
    """What the model cards of `task` say: `title` (with {scale}), and the quality that `measure` finds.

    `measure` takes weights, their info, datasets and the degradation that was trained on.
    """

    task: str
    title: str
    measure: Callable[[Path, ModelInfo, Sequence[Path], str], Quality]


def run_protocol(
    protocol: Protocol,
    model: str | Path,
    datasets: Sequence[Dataset],
    *,
    out_json: Path | None = None,
    endpoint_url: str | None = None,
    self_ensemble: bool = False,
    precision: str | None = None,
) -> ProtocolReport:
    """Measure `model` by a protocol; the report is also written to `out_json`.

    `self_ensemble` and `precision` as `imgtx.load` takes them. Raises UsageError for a model of another task and for an
    image that is not 8-bit grey or RGB.
    """
    if protocol.own_datasets and datasets:
        raise UsageError(
            f"evaluate --protocol {protocol.name} was given {datasets[0].name}: it makes its own data; give no dataset"
        )
    if out_json is not None:
        check_writable(out_json)
    groups = grouped(protocol, [Dataset(name, ()) for name in protocol.own_datasets] or datasets)
    # Imported after the cheap checks.
    import torch

    import imgtx

    weights = local_model(str(model), endpoint_url)
    predictor = imgtx.load(weights, self_ensemble=self_ensemble, precision=precision)
    if predictor.info.task != protocol.task:
        raise UsageError(
            f"evaluate --protocol {protocol.name} was given {model}, a model for {predictor.info.task}: expected one "
            f"for {protocol.task} (imgtx models list shows them)"
        )
    rows = [row for given in groups for row in protocol.rows(predictor, *given)]
    report = ProtocolReport(
        model=predictor.info.name,
        digest=predictor.digest or "",
        protocol=protocol.name,
        text=protocol.text,
        device=str(predictor.device),
        precision=predictor.precision,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        processor=str(this_processor()),
        rows=tuple(rows),
        self_ensemble=self_ensemble,
    )
    if out_json is not None:
        out_json.write_text(json.dumps(report.to_dict(), indent=1) + "\n")
    return report


def grouped(protocol: Protocol, datasets: Sequence[Dataset]) -> list[Sequence[Dataset]]:
    """Return the datasets of each measurement; UsageError where one lacks some."""
    wanted = len(protocol.inputs)
    if len(datasets) % wanted:
        names = ", ".join(dataset.name for dataset in datasets)
        raise UsageError(
            f"evaluate --protocol {protocol.name} was given {len(datasets)} datasets ({names}): expected a folder of "
            f"{' and one of '.join(protocol.inputs)}, neither with further folders of images in it"
        )
    return [datasets[first : first + wanted] for first in range(0, len(datasets), wanted)]


def measure_by(
    protocols: Mapping[str, Protocol], weights: Path, info: ModelInfo, benchmarks: Sequence[Path]
) -> tuple[Quality, list[ProtocolReport]]:
    """Measure weights by every protocol of their task, for a card; raises as `run_protocol`."""
    reports = [
        run_protocol(protocol, weights, _given(protocol, benchmarks)) for protocol in protocols.values()
    ]
    quality = Quality(
        "\n".join(_section(info, report) for report in reports),
        {report.protocol: report.to_dict() for report in reports},
        {
            f"{row.dataset} {row.condition}": round(row.means["psnr"], 3)
            for report in reports
            for row in report.rows
            if row.method == info.name and protocols[report.protocol].in_metrics
        },
    )
    return quality, reports


def _given(protocol: Protocol, benchmarks: Sequence[Path]) -> Sequence[Dataset]:
    """Return the datasets that a protocol takes of those for a card."""
    if protocol.own_datasets or not benchmarks:
        return ()
    found = protocol.find(benchmarks)
    return [dataset for dataset in found if dataset.name.casefold() in protocol.datasets] or found


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
