"""`imgtx train`: train a model on this machine or on a cluster."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from jobs.cli.options import endpoint_option, force_unlock_option, ray_address_option, set_option


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where to put state and weights.  [default: runs/<name>]",
)
@set_option
@click.option("--workers", type=int, metavar="N", help="Train on Ray with N workers.  [default: without Ray]")
@click.option("--min-workers", type=int, metavar="N", help="Continue with N workers while nodes are missing.")
@click.option(
    "--storage", metavar="URI", help="Where the workers keep checkpoints: a folder or s3://bucket/prefix."
)
@endpoint_option
@ray_address_option
@force_unlock_option
def train(spec: Path, folder: Path | None, settings: tuple[str, ...], **options: Any) -> None:
    """Train a model from the TOML file SPEC.

    After an interruption the same command continues.

    With --workers, the images of the spec may be in object storage (train = "s3://bucket/photos"), and --storage keeps
    the checkpoints. The batch size is that of all workers together: their number changes neither the crops nor the
    learning rate.

    \b
    imgtx train jobs/specs/sr-x2.toml --set train=photos/ --set valid=more-photos/
    imgtx train jobs/specs/text-to-image.toml --set pictures=emoji/
    imgtx train jobs/specs/style.toml --set train=photos/ --set styles=paintings/
    imgtx train jobs/specs/sr-x2.toml --workers 2 --storage s3://bucket/training
    """
    from imgtx.settings import merge, parse_settings, read_toml
    from imgtx.training.waiting import wait_briefly

    wait_briefly()
    from jobs.train.ray import read_ray_config
    from jobs.train.specs import make_spec
    from jobs.train.terminal import run_training

    config = read_ray_config(options)
    loaded = make_spec(merge(read_toml(spec), parse_settings(settings)), spec, on_ray=config is not None)
    folder = folder or Path("runs") / loaded.name
    url = options["endpoint_url"]
    path = run_training(loaded, folder, Console(stderr=True), config, endpoint_url=url)
    click.echo(path)
