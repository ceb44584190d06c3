"""`imgtx submit`, its group `jobs`, and `watch`: a run on a cluster, from elsewhere."""

import json
import os
import sys
import time
import uuid
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imgtx.errors import UsageError
from jobs.cli.shared import console, endpoint_option, json_option

STOPPED = 130
DASHBOARD_PORT = 8265  # Ray's own
WORDS = "imgtx.words"

address_option = click.option(
    "--address",
    metavar="URL",
    help="The head's dashboard, http://HOST:8265.  [default: RAY_API_SERVER_ADDRESS]",
)


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@address_option
@click.option("--date", "day", metavar="YYYY-MM-DD", help="Part of the job's name.  [default: today, UTC]")
@click.option("--id", "name", metavar="NAME", help="The job's name.  [default: from command and date]")
@click.option(
    "--packages",
    type=click.Choice(["pinned", "image"]),
    default="pinned",
    show_default=True,
    help="Python packages: the versions of requirements.lock, or what the nodes have.",
)
@click.option("--shared", is_flag=True, help="Absolute local paths are the same on every machine.")
@click.option(
    "--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable for the job; no secret."
)
@click.option("--no-wait", is_flag=True, help="Submit and leave; prints the job's name.")
@click.pass_context
def submit(context: click.Context, command: tuple[str, ...], **options: Any) -> None:
    """Run COMMAND on a Ray cluster: ship the code, start the job, follow its log, end with its exit code.

    The same command on the same date is the same job: submitted twice it runs once. Ctrl-C leaves the job alone, or
    stops it if you say so.

    \b
    imgtx submit --address http://head:8265 -- upscale s3://in/ s3://out/ --scale 4
    imgtx submit --address http://head:8265 --no-wait -- nightly nightly.toml
    """
    from jobs.submit.command import check_command
    from jobs.submit.head import connect
    from jobs.submit.submission import begin, make_submission

    night = _date(options["day"])
    if command[0] == "nightly" and options["day"] and "--date" not in command:
        command = (*command, "--date", str(night))
    root = context.find_root().command
    assert isinstance(root, click.Group)
    checked = check_command(command, root, shared=options["shared"])
    submission = make_submission(
        checked, night, name=options["name"], packages=options["packages"], variables=options["variables"]
    )
    head = connect(options["address"])
    job = begin(head, submission, _say)
    if options["no_wait"] or job.over:  # it succeeded before
        click.echo(job.id)
        return
    _follow(head, job.id, checked.destination)


@click.group("jobs")
def submitted() -> None:
    """What was submitted to a cluster: list it, read its log, stop it."""


@submitted.command("list")
@address_option
@json_option
def list_jobs(address: str | None, as_json: bool) -> None:
    """List the jobs of a head, the newest first."""
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
@address_option
@click.option("--follow", is_flag=True, help="Until it ends, and then with its exit code.")
def logs(job: str, address: str | None, follow: bool) -> None:
    """Print the log of a job."""
    from jobs.submit.head import connect

    head = connect(address)
    if follow:
        _follow(head, job, None)
    else:
        click.echo(head.logs(job), nl=False)


@submitted.command()
@click.argument("job", metavar="ID")
@address_option
def stop(job: str, address: str | None) -> None:
    """Stop a job; what it has done stays, and the same submission goes on."""
    from jobs.submit.head import connect

    click.echo(_stop(connect(address), job))


@click.command()
@click.argument("destination")
@endpoint_option
@click.option(
    "--every", type=float, default=5.0, show_default=True, metavar="SECONDS", help="How often to look."
)
@click.option("--next", "only_next", is_flag=True, help="Where the last run is over: wait for another.")
@json_option
def watch(destination: str, endpoint_url: str | None, every: float, only_next: bool, as_json: bool) -> None:
    """Watch the run on DESTINATION until it ends, from any machine, without Ray; ends with the run's exit code.

    Reads what the run writes beside its ledger, so the head may be gone: a run that shows no sign of life for a minute
    is said to be dead, and the exit code is 3.
    """
    from jobs.inspect.watch import Watching, watch_run

    if not every > 0:
        raise UsageError(f"--every {every:g}: give a number of seconds greater than 0")
    watching = Watching(destination, endpoint_url, every, as_json)
    code = watch_run(watching, Console(stderr=True), only_next=only_next)
    raise click.exceptions.Exit(code)


class RunsAnywhere(click.Command):
    """A command whose driver works on a machine of the cluster: where a head's door is given, it becomes a job there.

    Ray Data does not go through Ray Client, so that `--address ray://HOST:10001` cannot drive it from here.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = [str(ctx.info_name), *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        from pipeline.cluster.address import HEAD_SCHEMES

        door = ctx.params.get("address") or os.environ.get("RAY_ADDRESS") or ""
        if not door.startswith(HEAD_SCHEMES) or ctx.params.get("dry_run"):
            return super().invoke(ctx)
        dashboard = dashboard_of(door)
        if dashboard != door:
            _say(f"Ray Data does not go through {door}: this runs as a job of {dashboard}")
        # A name of its own: whoever types the command again after it succeeded wants what has come since.
        name = f"imgtx-{ctx.info_name}-{uuid.uuid4().hex[:8]}"
        words = without_address(ctx.meta[WORDS])
        return ctx.invoke(submit, command=words, address=dashboard, name=name)


def dashboard_of(door: str) -> str:
    """The dashboard's URL for any door of a head: of ray://HOST:10001 it is the one at Ray's own port."""
    return f"http://{urlsplit(door).hostname}:{DASHBOARD_PORT}" if door.startswith("ray://") else door


def without_address(words: list[str]) -> tuple[str, ...]:
    """A command's words less `--address URL` and `--address=URL`."""
    kept, follows = [], False
    for word in words:
        if not follows and word != "--address" and not word.startswith("--address="):
            kept.append(word)
        follows = not follows and word == "--address"
    return tuple(kept)


def _follow(head: Any, job: str, destination: str | None) -> None:
    """Show the log until the job has ended, and end with its exit code; Ctrl-C asks whether to stop it."""
    from jobs.submit.head import HeadGoneError
    from jobs.submit.submission import exit_code, why

    try:
        ended = head.follow(job, LogView())
    except KeyboardInterrupt:
        if not _wants_to_stop(head, job):
            raise click.exceptions.Exit(STOPPED) from None
        _say(_stop(head, job))
        raise click.exceptions.Exit(STOPPED) from None
    except HeadGoneError as error:
        state = f"imgtx watch {destination} tells how far it came, and " if destination else ""
        raise HeadGoneError(f"{error}; {state}the same submission to a living head goes on") from error
    code = exit_code(ended)
    if reason := why(ended):
        _say(reason)
    _say(f"{job} ended: {ended.status.lower()}, exit code {code}")
    raise click.exceptions.Exit(code)


def _wants_to_stop(head: Any, job: str) -> bool:
    """Ask; where nobody can answer the job is left alone."""
    options = f"imgtx jobs stop {job} --address {head.address}"
    if answers():
        try:
            if click.confirm(f"\nstop {job}? (no: it goes on without you)", default=False, err=True):
                return True
        except (click.Abort, KeyboardInterrupt):
            pass
    _say(f"{job} goes on; {options} stops it, the same imgtx submit command follows it again")
    return False


def answers() -> bool:
    """Whether somebody sits at standard input."""
    return sys.stdin.isatty()


def _stop(head: Any, job: str) -> str:
    from jobs.submit.submission import STOP_SECONDS

    if not head.stop(job):
        return f"{job} has ended already: {head.info(job).status.lower()}"
    deadline = time.monotonic() + STOP_SECONDS + 15
    while not (info := head.info(job)).over:
        if time.monotonic() > deadline:
            return f"{job} was told to stop and has not yet"
        time.sleep(0.5)
    return f"{job} {info.status.lower()}; the same submission goes on where it was"


class LogView:
    """A job's log on stdout; on a terminal a line of progress replaces the one before it."""

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


def _date(day: str | None) -> date:
    try:
        return date.fromisoformat(day) if day else datetime.now(UTC).date()
    except ValueError as error:
        raise UsageError(f"--date {day} is no date ({error}): write it as 2026-11-23") from error


def _say(text: str) -> None:
    click.echo(f"imgtx: {text}", err=True)
