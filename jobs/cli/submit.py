"""`imgtx submit` and its group `jobs`: run a command on a cluster, from elsewhere."""

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from imgtx.errors import INTERRUPTED
from imgtx.printable import printable
from jobs.cli.help import OrderedGroup
from jobs.cli.options import console, dashboard_option, json_option, parse_date


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@dashboard_option
@click.option(
    "--date", "day", metavar="YYYY-MM-DD", help="The date in the job's name.  [default: today, UTC]"
)
@click.option("--id", "name", metavar="NAME", help="The job's name.  [default: made from command and date]")
@click.option(
    "--packages",
    type=click.Choice(["pinned", "image"]),
    default="pinned",
    show_default=True,
    help="Python packages: the versions in requirements.lock, or those on the nodes.",
)
@click.option(
    "--shared", is_flag=True, help="Accept absolute local paths: they are the same on every machine."
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    help="An environment variable for the job; not a secret.",
)
@click.option("--no-wait", is_flag=True, help="Do not follow the job; print its name.")
@click.pass_context
def submit(context: click.Context, command: tuple[str, ...], **options: Any) -> None:
    """Run COMMAND as a job on a Ray cluster.

    Ships the code, starts the job, shows its log and ends with its exit code. The same command on the same date is the
    same job: submitted twice, it runs once. Ctrl-C asks whether to stop the job or leave it running.

    \b
    imgtx submit --address http://head:8265 -- upscale s3://in/ s3://out/ --scale 4
    imgtx submit --address http://head:8265 --no-wait -- nightly nightly.toml
    """
    from jobs.submit.command import check_command
    from jobs.submit.head import connect
    from jobs.submit.submission import begin, make_submission

    date = parse_date(options["day"]) if options["day"] else datetime.now(UTC).date()
    if command[0] == "nightly" and options["day"] and "--date" not in command:
        command = (*command, "--date", str(date))
    root = context.find_root().command
    assert isinstance(root, click.Group)
    checked = check_command(command, root, shared=options["shared"])
    submission = make_submission(
        checked, date, name=options["name"], packages=options["packages"], variables=options["variables"]
    )
    head = connect(options["address"])
    job = begin(head, submission, _say)
    # A job that is over here has succeeded before.
    if options["no_wait"] or job.over:
        click.echo(job.id)
        return
    _follow(head, job.id, checked.destination)


@click.group("jobs", cls=OrderedGroup)
def submitted() -> None:
    """List, follow and stop submitted jobs.

    \b
    imgtx jobs list --address http://head:8265
    imgtx jobs logs imgtx-upscale-20261123-1a2b3c4d --follow
    """


@submitted.command("list")
@dashboard_option
@json_option
def list_jobs(address: str | None, as_json: bool) -> None:
    """List the jobs of a cluster, newest first.

    \b
    imgtx jobs list --address http://head:8265
    """
    from jobs.submit.head import connect
    from jobs.submit.submission import exit_code

    found = connect(address).jobs()
    if as_json:
        for job in found:
            click.echo(json.dumps(vars(job)))
        return
    table = Table("job", "status", "exit", "started", "took", "command")
    for job in found:
        took = (job.ended or time.time()) - job.started
        code = str(exit_code(job)) if job.over else ""
        started = datetime.fromtimestamp(job.started, UTC)
        row = (job.id, job.status.lower(), code, f"{started:%Y-%m-%d %H:%M}", f"{took:.0f} s")
        table.add_row(*row, escape(job.entrypoint.removeprefix("python -m jobs.cli ")))
    console().print(table)


@submitted.command()
@click.argument("job", metavar="ID")
@dashboard_option
@click.option("--follow", is_flag=True, help="Follow the log until the job ends, and end with its exit code.")
def logs(job: str, address: str | None, follow: bool) -> None:
    """Print the log of a job.

    \b
    imgtx jobs logs imgtx-upscale-20261123-1a2b3c4d --follow
    """
    from jobs.submit.head import connect

    head = connect(address)
    if follow:
        _follow(head, job, None)
    else:
        click.echo(head.logs(job), nl=False)


@submitted.command()
@click.argument("job", metavar="ID")
@dashboard_option
def stop(job: str, address: str | None) -> None:
    """Stop a job; what it finished is kept, and the same submission continues.

    \b
    imgtx jobs stop imgtx-upscale-20261123-1a2b3c4d
    """
    from jobs.submit.head import connect

    click.echo(_stop(connect(address), job))


def _follow(head: Any, job: str, destination: str | None) -> None:
    """Show the log until the job ends, and end with its exit code; Ctrl-C asks whether to stop the job."""
    from jobs.submit.head import HeadGoneError
    from jobs.submit.submission import exit_code, failure_reason

    try:
        ended = head.follow(job, LogView())
    except KeyboardInterrupt:
        if not _wants_to_stop(head, job):
            raise click.exceptions.Exit(INTERRUPTED) from None
        _say(_stop(head, job))
        raise click.exceptions.Exit(INTERRUPTED) from None
    except HeadGoneError as error:
        state = f"imgtx watch {destination} shows its progress, and " if destination else ""
        raise HeadGoneError(f"{error}; {state}the same submission to a new head continues") from error
    code = exit_code(ended)
    if reason := failure_reason(ended):
        _say(reason)
    _say(f"{job} ended: {ended.status.lower()}, exit code {code}")
    raise click.exceptions.Exit(code)


def _wants_to_stop(head: Any, job: str) -> bool:
    """Ask the user; without a terminal the answer is no."""
    options = f"imgtx jobs stop {job} --address {head.address}"
    if answers():
        try:
            if click.confirm(f"\nstop {job}? (no: it keeps running)", default=False, err=True):
                return True
        except (click.Abort, KeyboardInterrupt):
            pass
    _say(f"{job} keeps running; {options} stops it, the same imgtx submit command follows it again")
    return False


def answers() -> bool:
    """Return whether standard input is a terminal."""
    return sys.stdin.isatty()


def _stop(head: Any, job: str) -> str:
    from jobs.submit.submission import STOP_SECONDS

    if not head.stop(job):
        return f"{job} has ended already: {head.info(job).status.lower()}"
    deadline = time.monotonic() + STOP_SECONDS + 15
    while not (info := head.info(job)).over:
        if time.monotonic() > deadline:
            return f"{job} was asked to stop and has not stopped yet"
        time.sleep(0.5)
    return f"{job} {info.status.lower()}; the same submission continues where it stopped"


class LogView:
    """Prints a job's log; on a terminal a progress line replaces the one before it."""

    def __init__(self) -> None:
        self.rest, self.replace = "", False
        self.terminal = sys.stdout.isatty()

    def __call__(self, piece: str) -> None:
        from jobs.run.progress import LINE

        *lines, self.rest = (self.rest + piece).split("\n")
        for line in lines:
            if self.replace:
                click.echo("\x1b[1A\x1b[2K", nl=False, color=True)
            click.echo(line)
            self.replace = self.terminal and LINE.match(line) is not None


def _say(text: str) -> None:
    click.echo(f"imgtx: {printable(text)}", err=True)
