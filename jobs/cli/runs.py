"""The commands of the tasks, made from their definitions; `imgtx plan` and `imgtx retry`."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import click
from rich.console import Console

from imgtx.errors import UsageError
from jobs.cli.help import OrderedGroup
from jobs.cli.options import (
    EXECUTION_OPTIONS,
    SPEC_OPTIONS,
    add_options,
    click_option,
    console,
    dry_run_option,
    endpoint_option,
    force_unlock_option,
    json_option,
    pixel_options,
    place_arguments,
    ray_address_option,
    selection_options,
    yes_option,
)
from pipeline.tasks import commands, options_of

PLAN_CLASSES = (
    "Counts the images that are new, changed, made by an older imgtx, stale, failed before, and up to date."
)


def run_command(name: str) -> click.Command:
    """Make the command that runs the tasks of that name: `imgtx upscale`."""
    tasks = commands()[name]

    def start(dry_run: bool, force_unlock: bool, yes: bool, as_json: bool, **given: Any) -> None:
        with _spec(name, given) as spec:
            _show_plan(spec, as_json) if dry_run else _run(spec, as_json, force_unlock=force_unlock, yes=yes)

    theirs = [
        *selection_options(commands()[name][0]),
        *pixel_options(commands()[name][0]),
        *EXECUTION_OPTIONS,
        *SPEC_OPTIONS,
        dry_run_option,
        force_unlock_option,
        yes_option,
    ]
    return _command(
        name, start, theirs, f"{tasks[0].description}\n\n{tasks[0].source_help}", tasks[0].examples
    )


def plan_command(name: str) -> click.Command:
    """Make the command that plans the tasks of that name: `imgtx plan upscale`."""

    def show(as_json: bool, **given: Any) -> None:
        with _spec(name, given) as spec:
            _show_plan(spec, as_json)

    text = f"Show what `imgtx {name}` would do, without downloading anything.\n\n{PLAN_CLASSES}"
    examples = [example.replace("imgtx ", "imgtx plan ", 1) for example in commands()[name][0].examples]
    task = commands()[name][0]
    return _command(
        name, show, [*selection_options(task), *pixel_options(task), *SPEC_OPTIONS], text, examples
    )


class RunCommand(click.Command):
    """A command that explains what a shell does with a glob that is not in quotes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "unexpected extra argument" not in error.message:
                raise
            quotes = "put a glob in quotes, or the shell makes many arguments of it"
            raise click.UsageError(f"{error.message}: {quotes}", ctx) from error


def _command(
    name: str, call: Callable, options: Sequence[Callable], text: str, examples: Iterable[str]
) -> click.Command:
    own = [click_option(option) for option in options_of(name) if not option.rare]
    call = add_options(call, [*place_arguments(commands()[name][0]), *own, *options, json_option])
    lines = "\n".join(examples)
    return click.command(name, cls=RunCommand, help=f"{text}\n\n\b\n{lines}")(call)


@contextmanager
def _spec(command: str, given: dict[str, Any]) -> Iterator[Any]:
    """Give the spec of a run of `command`, as long as the items that were given inline are in a file."""
    from jobs.run.inline import source_given
    from jobs.run.spec import read_run_spec

    with source_given(command, given) as (source, destination, options):
        yield read_run_spec(source, destination, command, options)


class PlanGroup(OrderedGroup):
    """`imgtx plan`, which says what to write where a command is missing."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            known = ", ".join(self.commands)
            raise UsageError(
                f"plan {args[0]}: must be one of {known}; write imgtx plan {next(iter(self.commands))} SOURCE "
                "DESTINATION"
            )
        return super().resolve_command(ctx, args)


@click.group(cls=PlanGroup)
def plan() -> None:
    """Show what a run would do without downloading anything.

    \b
    imgtx plan upscale photos/ out/ --scale 4
    imgtx plan restore scans/ clean/ --masks masks/
    """


for _name in commands():
    plan.add_command(plan_command(_name))


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
    if address:
        spec = replace(spec, engine="ray")
    _run(spec, as_json, force_unlock=force_unlock, retry_failed=True)


def _run(
    spec: Any, as_json: bool, *, force_unlock: bool, retry_failed: bool = False, yes: bool = False
) -> None:
    from jobs.cli.streams import survive_loss
    from jobs.inspect.left_out import skipped_line
    from jobs.inspect.status import print_summary, unknown_line
    from jobs.run.driver import accept, run
    from jobs.run.exit_code import exit_code
    from jobs.run.progress import watcher
    from pipeline.tables.without_pandas import skip_pandas

    skip_pandas()
    survive_loss()
    with watcher(as_json=as_json, console=Console(stderr=True)) as watch:
        agree = accept if yes else partial(_ask, watch.paused, as_json=as_json)
        summary = run(spec, watch, retry_failed=retry_failed, force_unlock=force_unlock, agree=agree)
    if as_json:
        click.echo(json.dumps(summary.to_dict()))
        _warn(skipped_line(summary.skipped, summary.listed, summary.skipped_kinds))
        _warn(unknown_line(summary))
    else:
        print_summary(summary, spec, console())
    raise click.exceptions.Exit(exit_code(spec, summary.to_dict()))


def _ask(paused: Callable[[], Any], plan: Any, spec: Any, *, as_json: bool) -> None:
    """Ask on a terminal before most of an archive is made again; elsewhere refuse to delete most of it."""
    from jobs.cli.submit import answers
    from jobs.run.consent import Replacement

    found = Replacement.of(plan, spec)
    if not found.is_most:
        return
    what = f"this run {found}, of {found.images} images, because an option, the model or imgtx is another"
    if answers() and not as_json:
        with paused():
            try:
                if click.confirm(f"{what}. Continue?", default=False, err=True):
                    return
            except click.Abort:
                raise KeyboardInterrupt from None
        raise UsageError("nothing was done: all outputs stay as they are")
    if found.deleted:
        raise UsageError(f"{what}: give --yes to allow it, or another destination to keep both")


def _show_plan(spec: Any, as_json: bool) -> None:
    from jobs.inspect.left_out import skipped_line
    from jobs.inspect.status import plan_dict, print_plan
    from jobs.run.prepare import plan_run, prepare
    from pipeline.tables.without_pandas import skip_pandas

    skip_pandas()
    made = plan_run(prepare(spec))
    if as_json:
        click.echo(json.dumps(plan_dict(made)))
        _warn(skipped_line(made.listed - made.images, made.listed, made.skipped_kinds))
    else:
        print_plan(made, console())


def _warn(text: str) -> None:
    """Say a warning beside a document on stdout; nothing for ""."""
    if text:
        click.echo(f"imgtx: warning: {text}", err=True)
