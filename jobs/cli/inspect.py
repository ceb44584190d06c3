"""`imgtx status`, `failures`, `verify` and `watch`: look at a destination, without Ray."""

import json
import sys

import click
from rich.console import Console

from imgtx.errors import FAILURES, UsageError
from jobs.cli.options import console, endpoint_option, json_option


@click.command()
@click.argument("destination")
@endpoint_option
@click.option(
    "--prometheus",
    is_flag=True,
    help="Print Prometheus' text format: the last success and the ledger's counts.",
)
@json_option
def status(destination: str, endpoint_url: str | None, prometheus: bool, as_json: bool) -> None:
    """Show the last run on DESTINATION and the counts of its ledger.

    \b
    imgtx status out/
    imgtx status s3://bucket/out/ --json
    """
    from jobs.inspect.prometheus import prometheus_text
    from jobs.inspect.status import print_status, read_status
    from pipeline.tables.without_pandas import skip_pandas

    skip_pandas()
    if prometheus:
        click.echo(prometheus_text(destination, endpoint_url), nl=False)
        return
    report = read_status(destination, endpoint_url)
    click.echo(json.dumps(report)) if as_json else print_status(report, console())


@click.command()
@click.argument("destination")
@endpoint_option
@click.option("--reason", "reasons", multiple=True, help="Only images that failed for this; may be repeated.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header.")
@json_option
def failures(
    destination: str, endpoint_url: str | None, reasons: tuple[str, ...], as_csv: bool, as_json: bool
) -> None:
    """List every failed image of DESTINATION, and why it failed.

    Reasons are explained by imgtx status and in docs/reference/ledger.md.

    \b
    imgtx failures out/
    imgtx failures out/ --reason truncated --reason corrupt
    imgtx failures s3://bucket/out/ --csv > failed.csv
    """
    from jobs.inspect.failures import read_failures, write_csv, write_json, write_lines
    from pipeline.tables.without_pandas import skip_pandas

    skip_pandas()
    if as_csv and as_json:
        raise UsageError("--csv --json: give one of them")
    pieces = read_failures(destination, endpoint_url, frozenset(reasons))
    if as_csv:
        write_csv(pieces, sys.stdout)
    elif as_json:
        write_json(pieces, sys.stdout)
    elif not write_lines(pieces, sys.stdout):
        click.echo("no image has failed" + (f" for {' or '.join(reasons)}" if reasons else ""), err=True)


@click.command()
@click.argument("destination")
@endpoint_option
@click.option("--quick", is_flag=True, help="Compare names and sizes only; read no object.")
@click.option(
    "--fix", is_flag=True, help="Mark damaged outputs as pending, so that the next run makes them again."
)
@json_option
def verify(destination: str, endpoint_url: str | None, quick: bool, fix: bool, as_json: bool) -> None:
    """Check the outputs in DESTINATION against its ledger and its source.

    Finds outputs that are missing, truncated or swapped, files that no run made, and keys without a row. The exit code
    is 3 if it finds any.

    \b
    imgtx verify out/
    imgtx verify s3://bucket/out/ --quick
    """
    from jobs.inspect.status import print_verify, run_verify
    from pipeline.tables.without_pandas import skip_pandas

    skip_pandas()
    report = run_verify(destination, endpoint_url, deep=not quick, fix=fix)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        print_verify(report, destination, console(), fixed=fix)
    if report.problems.num_rows:
        raise click.exceptions.Exit(FAILURES)


@click.command()
@click.argument("destination")
@endpoint_option
@click.option(
    "--every", type=float, default=5.0, show_default=True, metavar="SECONDS", help="How often to look."
)
@click.option("--wait-for-next", is_flag=True, help="If the last run has ended, wait for another.")
@json_option
def watch(
    destination: str, endpoint_url: str | None, every: float, wait_for_next: bool, as_json: bool
) -> None:
    """Watch the run on DESTINATION until it ends, from any machine.

    Reads the files that the run writes beside its ledger, so it works even when the head is gone. Ends with the exit
    code of the run; a run without a sign of life for a minute counts as dead (exit code 3).

    \b
    imgtx watch s3://bucket/out/
    """
    from jobs.inspect.watch import Watching, watch_run
    from pipeline.tables.without_pandas import skip_pandas

    skip_pandas()
    if not every > 0:
        raise UsageError(f"--every {every:g}: give a number of seconds greater than 0")
    watching = Watching(destination, endpoint_url, every, as_json)
    code = watch_run(watching, Console(stderr=True), wait_for_next=wait_for_next)
    raise click.exceptions.Exit(code)
