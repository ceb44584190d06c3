"""`imgtx evaluate`: measure a model on clean images, beside the methods it has to beat."""

import importlib
import json
from pathlib import Path
from typing import Any

import click

from imgtx.errors import UsageError
from imgtx.models.info import PRECISIONS
from jobs.cli.options import console, endpoint_option, json_option


class NamesOf(click.Choice):
    """The names in a table of `jobs.evaluation.protocols`, read when they are needed: that file brings numpy."""

    def __init__(self, table: str):
        self.table, self.case_sensitive = table, True

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]  # click's is an attribute
        return tuple(getattr(importlib.import_module("jobs.evaluation.protocols"), self.table))


@click.command()
@click.argument("model")
@click.argument("datasets", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="Write the report as JSON.")
@click.option(
    "--degradation",
    type=NamesOf("REDUCTIONS"),
    default="bicubic",
    show_default=True,
    help="How the small images are made: by the papers' reduction, or with archive damage by fixed seeds.",
)
@click.option(
    "--protocol",
    type=NamesOf("PROTOCOLS"),
    help="Instead of --degradation, for a model that restores, fills holes, transfers style or makes images from text.",
)
@click.option(
    "--self-ensemble",
    is_flag=True,
    help="Measure the average over eight rotated and mirrored views, as a run with --self-ensemble.",
)
@click.option("--precision", type=click.Choice(PRECISIONS), help="As of a run.  [default: float32]")
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
    imgtx evaluate text-to-image --protocol scenes
    imgtx evaluate text-to-image emoji/ --protocol captions
    imgtx evaluate style benchmarks/kodak24 paintings/ --protocol style
    """
    from jobs.evaluation.protocol import run_protocol
    from jobs.evaluation.protocols import PROTOCOLS
    from jobs.evaluation.report import print_protocol
    from jobs.evaluation.super_resolution import evaluate as run_evaluation
    from jobs.evaluation.super_resolution import print_report

    shared = {name: options[name] for name in ("endpoint_url", "self_ensemble", "precision")}
    folders = [on_this_machine(dataset) for dataset in datasets]
    if options["protocol"]:
        protocol = PROTOCOLS[options["protocol"]]
        found = () if protocol.own_datasets and not folders else protocol.find(folders)
        rows = run_protocol(protocol, model, found, out_json=out, **shared)
        if as_json:
            click.echo(json.dumps(rows.to_dict()))
        else:
            print_protocol(rows, protocol.published, console())
        return
    report = run_evaluation(model, folders, out_json=out, degradation=options["degradation"], **shared)
    click.echo(json.dumps(report.to_dict())) if as_json else print_report(report, console())


def on_this_machine(dataset: str) -> Path:
    """Return a local path; UsageError for a URI, of which pathlib would make `s3:/bucket`."""
    if "://" in dataset:
        raise UsageError(
            f"{dataset}: datasets are folders of this machine, or text files of names: copy it here first"
        )
    return Path(dataset)
