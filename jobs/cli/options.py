"""The options of the commands that start a run; each is a field of `pipeline.spec.RunSpec`, or says how to start."""

from collections.abc import Callable
from pathlib import Path

import click

ray_address_option = click.option(
    "--address",
    metavar="ADDRESS",
    help="A Ray cluster, HOST:6379 or ray://HOST:10001.  [default: RAY_ADDRESS, else a private local Ray]",
)
scale_option = click.option(
    "--scale", type=int, help="2, 3 or 4: enlarge by the packaged model sr-x2, sr-x3 or sr-x4.  [default: 2]"
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show the plan and stop (upscale: the same as imgtx plan)."
)
steal_option = click.option(
    "--steal", is_flag=True, help="Take the destination from a holder that you know is dead."
)

RUN_OPTIONS = (
    click.option(
        "--model",
        metavar="URI",
        help="A packaged name (imgtx models list), STORE/NAME@latest, or a file: docs/guides/your-models.md.",
    ),
    click.option(
        "--format",
        help="same, png, jpeg, webp, tiff or bmp; same keeps each image's own.  [default: same]",
    ),
    click.option("--quality", type=int, help="Of JPEG and WebP, 1 to 100.  [default: 92]"),
    click.option(
        "--precision", help="float32, bfloat16, float16 or auto (imgtx models probe).  [default: float32]"
    ),
    click.option(
        "--compile",
        is_flag=True,
        default=None,
        help="Through torch.compile, where imgtx models probe --compile found it worth it.",
    ),
    click.option(
        "--self-ensemble",
        is_flag=True,
        default=None,
        help="Mean over eight turned and mirrored views: a little nearer the truth, at eight times the time.",
    ),
    click.option("--limit", type=int, metavar="N", help="Take up at most N images; the rest stay pending."),
    click.option(
        "--workers", type=int, metavar="N", help="Model actors.  [default: one a GPU, else one a core]"
    ),
    click.option(
        "--min-workers",
        type=int,
        metavar="N",
        help="Begin with so many, and grow up to --workers with the cluster.",
    ),
    click.option("--gpus", type=float, metavar="N", help="GPUs to use; 0 for none.  [default: all]"),
    click.option(
        "--max-failed", metavar="N|P%", help="Failures to forgive before exit code 3.  [default: 1%]"
    ),
    click.option("--endpoint-url", metavar="URL", help="An S3 server other than AWS."),
    ray_address_option,
    click.option(
        "--spec",
        "spec_file",
        type=click.Path(path_type=Path),
        help="A TOML file with these and rarer settings.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any field of the spec; may be repeated.",
    ),
)


def run_options(command: Callable) -> Callable:
    """All that every command which starts a run shares."""
    for option in reversed(RUN_OPTIONS):
        command = option(command)
    return command
