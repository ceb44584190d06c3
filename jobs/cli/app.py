"""The command `imgtx`: its help, and the commands of the other files by section."""

import signal
from typing import Any

import click

from imgtx import __version__
from jobs.cli.doctor import doctor
from jobs.cli.errors import EPILOG, Commands
from jobs.cli.evaluate import evaluate
from jobs.cli.inspect import failures, status, verify, watch
from jobs.cli.models import models
from jobs.cli.nightly import nightly, schedule
from jobs.cli.runs import plan, retry, run_command
from jobs.cli.style import style
from jobs.cli.submit import submit, submitted
from jobs.cli.train import train
from pipeline.tasks import commands


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="imgtx")
def main() -> None:
    """Image Transformers over whole archives.

    Point imgtx at a folder or a bucket: every image is either transformed or listed in a ledger with the reason it
    failed. Runs are resumable: run the same command again and only the remaining images are processed.

    \b
    imgtx upscale photos/ out/ --scale 4
    imgtx upscale s3://bucket/archive/ s3://bucket/out/
    imgtx status out/
    """
    signal.signal(signal.SIGTERM, _raise_interrupt)
    # A closed terminal or a lost connection. Under nohup it is ignored, and stays so.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _raise_interrupt)


def _raise_interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


main.add_section("Run", *map(run_command, commands()), plan, retry)
main.add_section("Inspect", status, failures, verify, watch, doctor)
main.add_section("Models", models, evaluate, train, style)
main.add_section("Cluster", submit, submitted)
main.add_section("Nightly", nightly, schedule)
