"""`imgtx nightly` and `imgtx schedule`: a nightly run, and its manifests for a scheduler."""

import json
import shutil
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from imgtx.errors import FAILURES, UsageError
from jobs.cli.options import endpoint_option, force_unlock_option, json_option, parse_date, set_option


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--date",
    "day",
    metavar="YYYY-MM-DD",
    help="The date of the nightly run.  [default: today in the schedule's time zone]",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="The working folder on this machine.  [default: ~/.cache/imgtx/nights/...]",
)
@endpoint_option
@set_option
@force_unlock_option
@json_option
def nightly(spec: Path, day: str | None, folder: Path | None, as_json: bool, **options: Any) -> None:
    """Fine-tune the latest model on new images and promote the result if it passes the quality gate.

    The TOML file SPEC says which archive to watch, what to train and measure, and whether to upscale the archive with
    the result. A date that is finished is not run again; one that was interrupted continues.

    \b
    imgtx nightly jobs/specs/nightly.toml --date 2026-11-23
    """
    from imgtx.settings import parse_settings
    from jobs.nightly.context import NightlyConsole, open_nightly_run
    from jobs.nightly.loop import read_state, run_nightly, summary
    from jobs.nightly.spec import load_nightly_spec
    from jobs.run.progress import watcher

    changes = parse_settings(options["settings"])
    if options["endpoint_url"]:
        changes["endpoint_url"] = options["endpoint_url"]
    stderr = Console(stderr=True)
    date = parse_date(day) if day else None
    display = NightlyConsole(stderr, partial(watcher, as_json=as_json, console=stderr))
    opened = open_nightly_run(load_nightly_spec(spec, changes), date, folder, display)
    before = bool(read_state(opened).get("finished"))
    state = run_nightly(opened, force_unlock=options["force_unlock"])
    click.echo(json.dumps(state) if as_json else summary(state, before=before))
    if state["stages"]["upscale"].get("too_many_failed"):
        raise click.exceptions.Exit(FAILURES)


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--target",
    help="cronjob, raycronjob, rayjob (one nightly run) or systemd.  [default: cronjob]",
    default="cronjob",
)
@click.option("--date", "day", metavar="YYYY-MM-DD", help="The date of a rayjob.  [default: today]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="A folder for the files.  [default: print to stdout]"
)
@click.option(
    "--job-name",
    metavar="JOB",
    help="For the pods of the CronJob: create the RayJob of the date on which the Job JOB was due.",
)
def schedule(spec: Path, target: str, day: str | None, out: Path | None, job_name: str | None) -> None:
    """Generate Kubernetes or systemd manifests from SPEC's [schedule] table.

    However often a schedule fires, a date has one nightly run.

    \b
    imgtx schedule jobs/specs/nightly.toml | kubectl apply -f -
    imgtx schedule nightly.toml --target systemd --out ~/.config/systemd/user/
    """
    from jobs.nightly.spec import load_nightly_spec
    from jobs.schedule.kubernetes import TARGETS, manifests, ray_job, to_yaml

    loaded = load_nightly_spec(spec)
    if target not in (*TARGETS, "systemd"):
        raise UsageError(f"--target {target}: expected one of {', '.join(TARGETS)}, systemd")
    if target != "rayjob" and (day or job_name):
        raise UsageError(
            f"--date and --job-name are for --target rayjob; {target} has a nightly run per date"
        )
    if job_name:
        from jobs.schedule.tick import create_ray_job, due

        click.echo(create_ray_job(ray_job(loaded, loaded.when.date_of(due(job_name)))))
        return
    if target == "systemd":
        from jobs.schedule.systemd import units

        files = units(loaded, spec, _program())
    else:
        date = parse_date(day) if day else loaded.when.date_of(datetime.now(UTC))
        files = {f"{target}.yaml": to_yaml(manifests(loaded, target, date))}
    _hand_over(files, out)


def _program() -> str:
    """Return the absolute path of imgtx, which systemd needs: that beside this Python, else the first on PATH."""
    found = shutil.which("imgtx", path=str(Path(sys.executable).parent)) or shutil.which("imgtx")
    if not found:
        raise UsageError(
            "the service needs a program to start, and there is no imgtx beside this Python or on PATH: install imgtx"
        )
    return str(Path(found).absolute())


def _hand_over(files: dict[str, str], out: Path | None) -> None:
    """Write the files into the folder and print their paths; without a folder print their contents."""
    for name, content in files.items():
        if out is None:
            click.echo(f"# {name}\n{content}" if len(files) > 1 else content, nl=False)
            continue
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(content, encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"--out {out}: cannot write {name} ({error.strerror}); give a folder that can be written"
            ) from error
        click.echo(out / name)
