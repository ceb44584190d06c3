"""`imgtx schedule`: the nights of a spec as somebody else's scheduler wants them."""

import shutil
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click

from imgtx.errors import UsageError


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--target",
    help="cronjob, raycronjob, rayjob (one night's) or systemd.  [default: cronjob]",
    default="cronjob",
)
@click.option("--date", "day", metavar="YYYY-MM-DD", help="The night of a rayjob.  [default: today]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="A folder for the files; without it they go to the screen."
)
@click.option(
    "--tick", metavar="JOB", help="Inside a CronJob's pod: make the RayJob of the night JOB was due for."
)
def schedule(spec: Path, target: str, day: str | None, out: Path | None, tick: str | None) -> None:
    """Say the nights of SPEC, whose table [schedule] holds when and on what, as a scheduler's manifest.

    However often it ticks, a date has one night.

    \b
    imgtx schedule jobs/specs/nightly.toml | kubectl apply -f -
    imgtx schedule nightly.toml --target systemd --out ~/.config/systemd/user/
    """
    from jobs.nightly.spec import load_nightly_spec
    from jobs.schedule.kubernetes import TARGETS, manifests, ray_job, to_yaml

    loaded = load_nightly_spec(spec)
    if target not in (*TARGETS, "systemd"):
        raise UsageError(f"--target {target}: legal are {', '.join(TARGETS)}, systemd")
    if target != "rayjob" and (day or tick):
        raise UsageError(f"--date and --tick are for --target rayjob; {target} has a night a tick")
    if tick:
        from jobs.schedule.tick import create_ray_job, due

        click.echo(create_ray_job(ray_job(loaded, loaded.when.date_of(due(tick)))))
        return
    if target == "systemd":
        from jobs.schedule.systemd import units

        files = units(loaded, spec, _program())
    else:
        files = {f"{target}.yaml": to_yaml(manifests(loaded, target, _night(loaded, day)))}
    _hand_over(files, out)


def _night(spec: Any, day: str | None) -> date:
    try:
        return date.fromisoformat(day) if day else spec.when.date_of(datetime.now(UTC))
    except ValueError as error:
        raise UsageError(f"--date {day} is no date ({error}): write it as 2026-11-23") from error


def _program() -> str:
    """The absolute path of imgtx: systemd looks for nothing. First that beside this Python, then any."""
    found = shutil.which("imgtx", path=str(Path(sys.executable).parent)) or shutil.which("imgtx")
    if not found:
        raise UsageError(
            "no program imgtx beside this Python or on PATH, which the service could start: install imgtx"
        )
    return str(Path(found).absolute())


def _hand_over(files: dict[str, str], out: Path | None) -> None:
    """Into the folder, whose paths are printed; or to the screen, where several are told apart by their names."""
    for name, content in files.items():
        if out is None:
            click.echo(f"# {name}\n{content}" if len(files) > 1 else content, nl=False)
            continue
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(content, encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"--out {out}: {name} cannot be written ({error.strerror}); give a folder"
            ) from error
        click.echo(out / name)
