"""`imgtx evaluate`: a model measured on clean images, beside what it has to beat."""

import json
from pathlib import Path

import click

from jobs.cli_shared import console, endpoint_option, json_option


@click.command()
@click.argument("model")
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write the report as JSON.")
@click.option(
    "--degradation",
    type=click.Choice(["bicubic", "archive"]),
    default="bicubic",
    show_default=True,
    help="What makes the small images: the papers' reduction, or archive damage by fixed seeds.",
)
@endpoint_option
@json_option
def evaluate(
    model: str,
    datasets: tuple[Path, ...],
    out: Path | None,
    degradation: str,
    endpoint_url: str | None,
    as_json: bool,
) -> None:
    """Measure MODEL on folders of clean images by the papers' protocol, beside bicubic.

    \b
    imgtx evaluate sr-x2 benchmarks/set5 benchmarks/set14
    imgtx evaluate s3://bucket/models/sr-x2@latest benchmarks/
    imgtx evaluate sr-x2-archive benchmarks/ --degradation archive
    """
    from jobs.evaluate import evaluate as run_evaluation
    from jobs.evaluate import print_report

    report = run_evaluation(model, datasets, out_json=out, endpoint_url=endpoint_url, degradation=degradation)
    click.echo(json.dumps(report.to_dict())) if as_json else print_report(report, console())
