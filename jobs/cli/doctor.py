"""`imgtx doctor`: check this machine and a destination before a run."""

import json
from dataclasses import asdict

import click

from imgtx.errors import FAILURES
from jobs.cli.options import console, endpoint_option, json_option, ray_address_option


@click.command()
@click.argument("destination", required=False)
@endpoint_option
@click.option(
    "--engine",
    default="auto",
    help="For runs on this engine: local, ray, or auto, for which only large runs need what Ray needs.  "
    "[default: auto]",
)
@ray_address_option
@json_option
def doctor(
    destination: str | None, endpoint_url: str | None, engine: str, address: str | None, as_json: bool
) -> None:
    """Check this machine, and DESTINATION, for what a run needs.

    Prints a line for each check, with a remedy where something is missing: memory, shared memory, disk, open files,
    processes, ports, folders, containers and Slurm; whether the storage keeps what a run needs. It takes seconds,
    starts nothing and leaves nothing at DESTINATION. The exit code is 3 if a run would not work.

    \b
    imgtx doctor
    imgtx doctor out/
    imgtx doctor s3://bucket/out/ --engine ray --json
    """
    from imgtx.printable import printable
    from jobs.doctor.check import check
    from jobs.doctor.findings import PROBLEM, count
    from pipeline.tables.without_pandas import skip_pandas

    skip_pandas()
    findings = check(destination, endpoint_url, engine, address)
    problems = count(findings, PROBLEM)
    if as_json:
        click.echo(json.dumps({"ok": not problems, "findings": [asdict(finding) for finding in findings]}))
    else:
        shown = console()
        for finding in findings:
            remedy = f": {finding.remedy}" if finding.remedy else ""
            line = f"{finding.level:8} {finding.check:16} {finding.text}{remedy}"
            shown.print(
                printable(line),
                style={"warning": "yellow", "problem": "red"}.get(finding.level),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    if problems:
        raise click.exceptions.Exit(FAILURES)
