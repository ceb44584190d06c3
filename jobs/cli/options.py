"""Every option that more than one command has, defined once."""

from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

import click
from rich.console import Console

from imgtx.errors import UsageError
from pipeline.tasks.base import Option, Task

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Machine-readable output, one JSON document per line."
)
endpoint_option = click.option("--endpoint-url", metavar="URL", help="An S3 server other than AWS.")
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set any field of the spec; may be repeated.",
)
force_unlock_option = click.option(
    "--force-unlock",
    is_flag=True,
    help="Take over the lock of another process. Use this only if that process is dead.",
)
ray_address_option = click.option(
    "--address",
    metavar="HOST:PORT",
    help="The Ray cluster to join from one of its machines; from elsewhere use imgtx submit.  "
    "[default: RAY_ADDRESS, else a private local Ray]",
)
dashboard_option = click.option(
    "--address",
    metavar="URL",
    help="The dashboard of the Ray cluster, http://HOST:8265.  [default: RAY_API_SERVER_ADDRESS]",
)
yes_option = click.option(
    "--yes",
    is_flag=True,
    help="Do not ask before most outputs of a finished archive are made again. Where nobody can be asked, it is needed "
    "only if the old ones are deleted, as for another format.",
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Show the plan and stop.")

EXECUTION_OPTIONS = (
    click.option(
        "--limit", type=int, metavar="N", help="Process at most N images and leave the rest pending."
    ),
    click.option(
        "--workers", type=int, metavar="N", help="Model actors.  [default: one per GPU, else one per core]"
    ),
    click.option(
        "--min-workers",
        type=int,
        metavar="N",
        help="Start with this many actors, and grow up to --workers with the cluster.",
    ),
    click.option("--gpus", type=float, metavar="N", help="GPUs to use; 0 for none.  [default: all]"),
    click.option(
        "--no-times",
        "times",
        is_flag=True,
        flag_value=False,
        default=None,
        help="Give local outputs the time of writing, not the modification time of their sources.",
    ),
    click.option("--max-failed", metavar="N|P%", help="Failures to allow before exit code 3.  [default: 1%]"),
    click.option(
        "--max-skipped",
        metavar="N|P%",
        help="Files that are not images by their names to allow before exit code 3.  [default: any number]",
    ),
    click.option(
        "--engine",
        help="Who processes the images: local (processes of this machine, without Ray), ray, or auto: local for up to "
        "2,000 images and 1 GiB on CPUs of this machine, else ray.  [default: auto]",
    ),
    ray_address_option,
)
SELECTION_OPTIONS = (
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Take only what matches, such as '*.jpg' or '2019/**'; may be repeated. Hidden names, such as .git, are "
        "taken only if a glob spells them: docs/guides/selection.md.",
    ),
    click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out what matches; may be repeated."),
    click.option(
        "--keys",
        metavar="FILE",
        help="Take only the files that this list names, relative to SOURCE: a line each, or the column key of a "
        "Parquet or CSV file.",
    ),
)
SPEC_OPTIONS = (
    endpoint_option,
    click.option(
        "--spec",
        "spec_file",
        type=click.Path(path_type=Path),
        help="A TOML file with these and less common settings.",
    ),
    set_option,
)


def add_options(command: Callable, options: Iterable[Callable]) -> Callable:
    """Add options to a command function, in this order."""
    for option in reversed([*options]):
        command = option(command)
    return command


def click_option(option: Option) -> Callable:
    """Return a task's option as one of click's; None where the user does not give it."""
    flag, metavar = option.flag.strip(), option.metavar
    if option.type is bool:
        return click.option(flag, is_flag=True, default=None, help=option.help)
    if option.type is list:
        return click.option(flag, multiple=True, metavar=metavar, help=option.help)
    return click.option(flag, type=option.type, metavar=metavar, help=option.help)


def selection_options(task: Task) -> tuple[Callable, ...]:
    """Return the options that choose files of a source; none where the source is a table."""
    return SELECTION_OPTIONS if "images" in task.sources else ()


def pixel_options(task: Task) -> list[Callable]:
    """Return the options that decide an image's pixels, and so what a plan says."""
    formats = (
        "png, jpeg, webp, tiff, bmp, avif or jxl; same keeps the format of each image, but BMP becomes PNG.  "
        "[default: same]"
    )
    options = [
        click.option(
            "--model",
            metavar="URI",
            help="A packaged name (imgtx models list), STORE/NAME@latest, or a file: docs/guides/your-models.md.",
        ),
        click.option(
            "--format",
            help=f"same, {formats}"
            if task.keeps_format
            else f"png, jpeg, webp, tiff, bmp, avif or jxl.  [default: {task.default_format}]",
        ),
        click.option(
            "--quality", type=int, help="Quality of JPEG, WebP, AVIF and JPEG XL, 1 to 100.  [default: 92]"
        ),
        click.option(
            "--precision", help="float32, bfloat16, float16 or auto (imgtx models probe).  [default: float32]"
        ),
        click.option(
            "--compile",
            is_flag=True,
            default=None,
            help="Use torch.compile where imgtx models probe --compile found it worthwhile.",
        ),
    ]
    options.append(
        click.option(
            "--no-provenance",
            "provenance",
            is_flag=True,
            flag_value=False,
            default=None,
            help="Do not say in the outputs' XMP which software, task and model made them.",
        )
    )
    if task.keeps_format:
        options.append(
            click.option(
                "--on-damage",
                metavar="refuse|accept",
                help="accept takes what can be recovered of truncated pictures; what is missing of them is grey or "
                "black.  [default: refuse]",
            )
        )
        options.append(
            click.option(
                "--self-ensemble",
                is_flag=True,
                default=None,
                help="Average over eight rotated and mirrored views: slightly more accurate, eight times slower.",
            )
        )
    return options


def place_arguments(task: Task) -> list[Callable]:
    """Return where a command reads and writes: two arguments, of which an option may replace the first."""
    if task.inline is None:
        return [click.argument("source", metavar=task.source_name), click.argument("destination")]
    inline = task.inline
    return [
        click.argument("source", metavar=f"[{task.source_name}]", required=False),
        click.argument("destination", metavar="DESTINATION", required=False),
        click.option(
            inline.short, f"--{inline.option}", "inline", multiple=True, metavar="TEXT", help=inline.help
        ),
    ]


def parse_date(text: str) -> date:
    """Parse the value of `--date`; UsageError for anything but an ISO date."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--date {text} is not a date ({error}): write it as 2026-11-23") from error


def console() -> Console:
    """Return a console for stdout: as wide as the terminal, or 160 columns in a pipe, so that tables are not cut."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
