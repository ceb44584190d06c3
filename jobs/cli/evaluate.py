"""`imgtx evaluate`: a model measured on clean images, beside what it has to beat."""

import json
from pathlib import Path
from typing import Any

import click

from imgtx.errors import UsageError
from jobs.cli.options import console, endpoint_option, json_option


@click.command()
@click.argument("model")
@click.argument("datasets", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the report as JSON.")
@click.option(
    "--degradation",
    type=click.Choice(["bicubic", "archive"]),
    default="bicubic",
    show_default=True,
    help="What makes the small images: the papers' reduction, or archive damage by fixed seeds.",
)
@click.option(
    "--protocol",
    type=click.Choice(["denoise", "jpeg", "no-harm", "offsets", "holes"]),
    help="For models that restore or fill holes (holes), instead: docs/guides/restore.md says what each measures.",
)
@click.option(
    "--self-ensemble",
    is_flag=True,
    help="Of the mean over eight turned and mirrored views, as a run's option.",
)
@endpoint_option
@json_option
def evaluate(
    model: str,
    datasets: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure MODEL on folders of clean images by the papers' protocols, beside bicubic or classical methods.

    \b
    imgtx evaluate sr-x2 benchmarks/set5 benchmarks/set14
    imgtx evaluate s3://bucket/models/sr-x2@latest benchmarks/
    imgtx evaluate sr-x2 benchmarks/ --self-ensemble
    imgtx evaluate sr-x2-archive benchmarks/ --degradation archive
    imgtx evaluate restore benchmarks/cbsd68.txt --protocol denoise
    imgtx evaluate inpaint benchmarks/kodak24 --protocol holes
    """
    from jobs.evaluation.report import print_protocol
    from jobs.evaluation.restoration import run_protocol
    from jobs.evaluation.super_resolution import evaluate as run_evaluation
    from jobs.evaluation.super_resolution import find_datasets, print_report

    shared = {name: options[name] for name in ("endpoint_url", "self_ensemble")}
    folders = [on_this_machine(dataset) for dataset in datasets]
    if options["protocol"]:
        found = find_datasets(folders)
        told = run_protocol(options["protocol"], model, found, out_json=out, **shared)
        click.echo(json.dumps(told.to_dict())) if as_json else print_protocol(told, console())
        return
    report = run_evaluation(model, folders, out_json=out, degradation=options["degradation"], **shared)
    click.echo(json.dumps(report.to_dict())) if as_json else print_report(report, console())


def on_this_machine(dataset: str) -> Path:
    """UsageError for what lies in storage: pathlib would make `s3:/bucket` of it and find nothing there."""
    if "://" in dataset:
        raise UsageError(
            f"{dataset}: datasets are folders of this machine, or text files of names: copy it here first"
        )
    return Path(dataset)
