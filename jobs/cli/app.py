"""The command line. Thin: each command reads its options, calls one function of `jobs`, prints what came back."""

import json
import signal
import tempfile
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from imgtx import __version__
from imgtx.errors import ImgtxError, LeaseHeldError, ModelError, RunInterruptedError, StorageError, UsageError
from jobs.cli.evaluate import evaluate
from jobs.cli.models import models
from jobs.cli.options import (
    dry_run_option,
    ray_address_option,
    run_options,
    scale_option,
    steal_option,
)  # fmt: skip
from jobs.cli.schedule import schedule
from jobs.cli.shared import console, json_option
from jobs.cli.submit import RunsAnywhere, submit, submitted, watch

DONE, BUG, USAGE, FAILURES, INTERRUPTED = 0, 1, 2, 3, 130

EPILOG = (
    "Exit codes: 0 done; 2 wrong usage, nothing was done; 3 finished with more failures than --max-failed, or not "
    "finished; 130 interrupted, the same command goes on; 1 a bug in imgtx."
)


class Commands(click.Group):
    """A group that ends every known error in one line and an exit code, and names a bug as one."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (UsageError, ModelError, LeaseHeldError) as error:
            _stop(str(error), USAGE)
        except StorageError as error:
            again = "; nothing is lost, run the same command again" if error.transient else ""
            mendable = error.reason in ("not_found", "forbidden", "credentials")
            _stop(f"{error}{again}", USAGE if mendable else FAILURES)
        except KeyboardInterrupt:
            _stop("stopped; the same command goes on", INTERRUPTED)
        except RunInterruptedError as error:
            _stop(str(error), INTERRUPTED)
        except ImgtxError as error:
            _stop(str(error), FAILURES)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            with tempfile.NamedTemporaryFile("w", prefix="imgtx-bug-", suffix=".txt", delete=False) as file:
                file.write(traceback.format_exc())
            _stop(f"a bug in imgtx: {type(error).__name__}: {error}; its traceback is in {file.name}", BUG)


def _stop(message: str, code: int) -> None:
    click.echo(f"imgtx: {message}", err=True)
    raise click.exceptions.Exit(code)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="imgtx")
def main() -> None:
    """Image Transformers over whole archives.

    Point imgtx at a folder or a bucket: every image comes out transformed, or stands in the ledger with the reason
    it did not. Stop it at any moment and start it again: it costs only what is left.

    \b
    imgtx upscale photos/ out/ --scale 4
    imgtx upscale s3://bucket/archive/ s3://bucket/out/
    imgtx status out/
    """
    signal.signal(signal.SIGTERM, _as_interrupt)


def _as_interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


@main.command(cls=RunsAnywhere)
@click.argument("source")
@click.argument("destination")
@scale_option
@run_options
@dry_run_option
@steal_option
@json_option
def upscale(source: str, destination: str, dry_run: bool, steal: bool, as_json: bool, **options: Any) -> None:
    """Enlarge every image under SOURCE into DESTINATION.

    SOURCE and DESTINATION are folders, s3:// URIs or anything fsspec opens. Outputs mirror the source tree under
    DESTINATION/images; the ledger beside them holds one row for each key. What is current is not read again.

    \b
    imgtx upscale photos/ out/ --scale 4 --format png
    imgtx upscale s3://bucket/in/ s3://bucket/out/ --endpoint-url http://localhost:9000
    """
    from jobs.run.spec import read_run_spec

    spec = read_run_spec(source, destination, "super-resolution", options)
    _show_plan(spec, as_json) if dry_run else _run(spec, as_json, steal=steal)


@main.command(cls=RunsAnywhere)
@click.argument("source")
@click.argument("destination")
@click.option("--masks", metavar="URI", help="Masks of the images' names, white where to repair: fill holes.")
@click.option("--missing-mask", help="skip or no-hole: what an image without a mask is.  [default: skip]")
@click.option(
    "--mask-color", metavar="#RRGGBB", help="Fill what is painted in this colour, '#ff00ff', instead."
)
@run_options
@dry_run_option
@steal_option
@json_option
def restore(source: str, destination: str, dry_run: bool, steal: bool, as_json: bool, **options: Any) -> None:
    """Repair every image under SOURCE into DESTINATION, at its own size.

    Without masks noise, JPEG damage and mild blur go, whatever their strength (model restore). With masks, or painted
    damage, holes are filled (model inpaint), and every other pixel stays as it was.

    \b
    imgtx restore scans/ clean/
    imgtx restore scans/ clean/ --masks masks/ --format png
    imgtx restore scans/ clean/ --mask-color '#ff00ff'
    """
    from jobs.run.spec import read_run_spec

    spec = read_run_spec(source, destination, "restoration", options)
    _show_plan(spec, as_json) if dry_run else _run(spec, as_json, steal=steal)


@main.command()
@click.argument("source")
@click.argument("destination")
@scale_option
@run_options
@json_option
def plan(source: str, destination: str, as_json: bool, **options: Any) -> None:
    """Say what upscale would do, and fetch nothing: new, changed, stale, failed before, done."""
    from jobs.run.spec import read_run_spec

    _show_plan(read_run_spec(source, destination, "super-resolution", options), as_json)


@main.command(cls=RunsAnywhere)
@click.argument("destination")
@click.option("--endpoint-url", metavar="URL", help="An S3 server other than AWS.")
@ray_address_option
@click.option("--steal", is_flag=True, help="Take the destination from a holder that you know is dead.")
@json_option
def retry(
    destination: str, endpoint_url: str | None, address: str | None, steal: bool, as_json: bool
) -> None:
    """Run the images of DESTINATION that failed once more, and no others, with the settings of its last run."""
    from pipeline.runs import last_spec

    spec = replace(last_spec(destination, endpoint_url), address=address)
    _run(spec, as_json, steal=steal, retry_failed=True)


@main.command()
@click.argument("destination")
@click.option("--endpoint-url", metavar="URL", help="An S3 server other than AWS.")
@click.option(
    "--prometheus", is_flag=True, help="As Prometheus' text: the last success, and the ledger's counts."
)
@json_option
def status(destination: str, endpoint_url: str | None, prometheus: bool, as_json: bool) -> None:
    """Show what the ledger of DESTINATION says, and its last run. Needs no Ray."""
    from jobs.inspect.prometheus import exposition
    from jobs.inspect.status import print_status, read_status

    if prometheus:
        click.echo(exposition(destination, endpoint_url), nl=False)
        return
    report = read_status(destination, endpoint_url)
    click.echo(json.dumps(report)) if as_json else print_status(report, console())


@main.command()
@click.argument("destination")
@click.option("--endpoint-url", metavar="URL", help="An S3 server other than AWS.")
@click.option("--quick", is_flag=True, help="Names and sizes only; no object is read.")
@click.option(
    "--fix", is_flag=True, help="Mark what is damaged as pending, so that the next run makes it again."
)
@json_option
def verify(destination: str, endpoint_url: str | None, quick: bool, fix: bool, as_json: bool) -> None:
    """Hold the ledger of DESTINATION against what really lies there and in its source.

    Finds outputs that are missing, truncated or swapped, files nobody asked for, and keys without a row. Exit code 3
    where it finds any.
    """
    from jobs.inspect.status import print_verify, run_verify

    report = run_verify(destination, endpoint_url, deep=not quick, fix=fix)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        print_verify(report, destination, console(), fixed=fix)
    if report.problems.num_rows:
        raise click.exceptions.Exit(FAILURES)


@main.command(cls=RunsAnywhere)
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where state and weights go.  [default: runs/<name>]"
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any field of the spec; may be repeated."
)
@click.option("--workers", type=int, metavar="N", help="Train on Ray with so many.  [default: without Ray]")
@click.option("--min-workers", type=int, metavar="N", help="Go on with so few while nodes are missing.")
@click.option(
    "--storage", metavar="URI", help="Where the workers' checkpoints go: a folder, s3://bucket/prefix."
)
@click.option("--endpoint-url", metavar="URL", help="An S3 server other than AWS.")
@ray_address_option
def train(spec: Path, folder: Path | None, settings: tuple[str, ...], **options: Any) -> None:
    """Train a model as the TOML file SPEC says; the same command goes on after an interruption.

    With --workers the spec's images may lie anywhere (train = "s3://bucket/photos"), and --storage keeps the
    checkpoints. The batch is that of all workers together: their number changes neither crops nor learning rate.

    \b
    imgtx train jobs/specs/sr-x2.toml --set train=photos/ --set valid=more-photos/
    imgtx train jobs/specs/sr-x2.toml --workers 2 --storage s3://bucket/training
    """
    from imgtx.settings import parse_settings
    from imgtx.training.spec import load_train_spec
    from jobs.train.ray import read_fleet
    from jobs.train.terminal import run_training

    fleet = read_fleet(options)
    loaded = load_train_spec(spec, parse_settings(settings), folders=fleet is None)
    path = run_training(loaded, folder or Path("runs") / loaded.name, Console(stderr=True), fleet)
    click.echo(path)


@main.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--date", "day", metavar="YYYY-MM-DD", help="The night.  [default: today, where its schedule is]"
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where the night works.  [default: ~/.cache/imgtx/nights/...]",
)
@click.option("--endpoint-url", metavar="URL", help="An S3 server other than AWS.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any field of the spec; may be repeated."
)
@click.option("--steal", is_flag=True, help="Take the night from a holder that you know is dead.")
@json_option
def nightly(spec: Path, day: str | None, folder: Path | None, as_json: bool, **options: Any) -> None:
    """Go on training on what is new in the archive; the new weights become the latest if the gate lets them pass.

    The TOML file SPEC says what is watched, trained, measured and, if asked, upscaled anew. A date that is done is left
    alone; one that was stopped goes on where it stopped.

    \b
    imgtx nightly jobs/specs/nightly.toml --date 2026-11-23
    """
    from imgtx.settings import parse_settings
    from jobs.nightly.context import Shown, open_night
    from jobs.nightly.loop import read_state, run_night, summary
    from jobs.nightly.spec import load_nightly_spec
    from jobs.run.progress import watcher

    changes = parse_settings(options["settings"])
    if options["endpoint_url"]:
        changes["endpoint_url"] = options["endpoint_url"]
    stderr = Console(stderr=True)
    watching = partial(watcher, as_json=as_json, console=stderr)
    night = open_night(load_nightly_spec(spec, changes), day, folder, Shown(stderr, watching))
    before = bool(read_state(night).get("finished"))
    state = run_night(night, steal=options["steal"])
    click.echo(json.dumps(state) if as_json else summary(state, before=before))
    if state["stages"]["upscale"].get("too_many_failed"):
        raise click.exceptions.Exit(FAILURES)


def _run(spec: Any, as_json: bool, *, steal: bool, retry_failed: bool = False) -> None:
    from jobs.inspect.status import print_summary
    from jobs.run.driver import run
    from jobs.run.progress import watcher

    with watcher(as_json=as_json, console=Console(stderr=True)) as watch:
        summary = run(spec, watch, retry_failed=retry_failed, steal=steal)
    click.echo(json.dumps(summary.to_dict())) if as_json else print_summary(summary, spec, console())
    allowed = spec.failures_allowed(summary.listed - summary.left)
    if summary.failed > allowed or not summary.accounted:
        raise click.exceptions.Exit(FAILURES)


def _show_plan(spec: Any, as_json: bool) -> None:
    from jobs.inspect.status import plan_dict, print_plan
    from jobs.run.driver import plan_run, prepare

    made = plan_run(prepare(spec))
    click.echo(json.dumps(plan_dict(made))) if as_json else print_plan(made, console())


main.add_command(evaluate)
main.add_command(models)
main.add_command(schedule)
main.add_command(submit)
main.add_command(submitted)
main.add_command(watch)
