"""`imgtx upscale`, `restore`, `plan` and `retry`: start a run, or show what it would do."""

import json
from dataclasses import replace
from typing import Any

import click
from rich.console import Console

from imgtx.errors import FAILURES
from jobs.cli.options import (
    console,
    dry_run_option,
    endpoint_option,
    force_unlock_option,
    json_option,
    ray_address_option,
    run_options,
    scale_option,
)


@click.command()
@click.argument("source")
@click.argument("destination")
@scale_option
@run_options
@dry_run_option
@force_unlock_option
@json_option
def upscale(
    source: str, destination: str, dry_run: bool, force_unlock: bool, as_json: bool, **options: Any
) -> None:
    """Enlarge every image under SOURCE into DESTINATION.

    SOURCE and DESTINATION are folders, s3:// URIs or any other URI that fsspec opens. Outputs mirror the source tree
    under DESTINATION/images; the ledger beside them has one row per key. Images that are up to date are not read.

    \b
    imgtx upscale photos/ out/ --scale 4 --format png
    imgtx upscale s3://bucket/in/ s3://bucket/out/ --endpoint-url http://localhost:9000
    """
    from jobs.run.spec import read_run_spec

    spec = read_run_spec(source, destination, "super-resolution", options)
    _show_plan(spec, as_json) if dry_run else _run(spec, as_json, force_unlock=force_unlock)


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option(
    "--masks", metavar="URI", help="Masks with the names of the images, white where to repair: fill holes."
)
@click.option(
    "--missing-mask", help="skip or no-hole: how to treat an image without a mask.  [default: skip]"
)
@click.option(
    "--mask-color", metavar="#RRGGBB", help="Instead, fill what is painted in this colour, such as '#ff00ff'."
)
@run_options
@dry_run_option
@force_unlock_option
@json_option
def restore(
    source: str, destination: str, dry_run: bool, force_unlock: bool, as_json: bool, **options: Any
) -> None:
    """Repair every image under SOURCE into DESTINATION, at its own size.

    Without masks, remove noise, JPEG damage and mild blur of any strength (model restore). With masks or a mask
    colour, fill holes (model inpaint); every other pixel stays as it was.

    \b
    imgtx restore scans/ clean/
    imgtx restore scans/ clean/ --masks masks/ --format png
    imgtx restore scans/ clean/ --mask-color '#ff00ff'
    """
    from jobs.run.spec import read_run_spec

    spec = read_run_spec(source, destination, "restoration", options)
    _show_plan(spec, as_json) if dry_run else _run(spec, as_json, force_unlock=force_unlock)


@click.command()
@click.argument("source")
@click.argument("destination")
@scale_option
@run_options
@json_option
def plan(source: str, destination: str, as_json: bool, **options: Any) -> None:
    """Show what a run would do without downloading anything.

    Counts the images that are new, changed, stale, failed before, and up to date.

    \b
    imgtx plan photos/ out/ --scale 4
    """
    from jobs.run.spec import read_run_spec

    _show_plan(read_run_spec(source, destination, "super-resolution", options), as_json)


@click.command()
@click.argument("destination")
@endpoint_option
@ray_address_option
@force_unlock_option
@json_option
def retry(
    destination: str, endpoint_url: str | None, address: str | None, force_unlock: bool, as_json: bool
) -> None:
    """Process the failed images of DESTINATION again, and no others.

    Uses the settings of its last run.

    \b
    imgtx retry out/
    """
    from pipeline.runs import last_spec

    spec = replace(last_spec(destination, endpoint_url), address=address)
    _run(spec, as_json, force_unlock=force_unlock, retry_failed=True)


def _run(spec: Any, as_json: bool, *, force_unlock: bool, retry_failed: bool = False) -> None:
    from jobs.inspect.status import print_summary
    from jobs.run.driver import run
    from jobs.run.progress import watcher

    with watcher(as_json=as_json, console=Console(stderr=True)) as watch:
        summary = run(spec, watch, retry_failed=retry_failed, force_unlock=force_unlock)
    click.echo(json.dumps(summary.to_dict())) if as_json else print_summary(summary, spec, console())
    allowed = spec.failures_allowed(summary.listed - summary.left)
    if summary.failed > allowed or not summary.accounted:
        raise click.exceptions.Exit(FAILURES)


def _show_plan(spec: Any, as_json: bool) -> None:
    from jobs.inspect.status import plan_dict, print_plan
    from jobs.run.driver import plan_run, prepare

    made = plan_run(prepare(spec))
    click.echo(json.dumps(plan_dict(made))) if as_json else print_plan(made, console())
