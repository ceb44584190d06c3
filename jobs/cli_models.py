"""`imgtx models`: the models at hand, what they say of themselves, and how they are made ready."""

import json
from pathlib import Path

import click

from jobs.cli_shared import console, json_option


@click.group()
def models() -> None:
    """The models at hand."""


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the packaged models with what they do and how well."""
    from jobs.show import model_rows, print_models

    rows = model_rows()
    click.echo(json.dumps(rows)) if as_json else print_models(rows, console())


@models.command("show")
@click.argument("model")
def show_model(model: str) -> None:
    """Print everything the weights of MODEL say of themselves, as JSON."""
    from imgtx.weight_file import read_info

    info, digest = read_info(model)
    click.echo(json.dumps({"digest": digest} | info.to_dict(), indent=2))


@models.command("finish")
@click.argument("weights", type=click.Path(path_type=Path))
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--photos", required=True, type=click.Path(path_type=Path), help="Clean photos to measure the halo on."
)
@click.option(
    "--out",
    default="imgtx/packaged",
    type=click.Path(path_type=Path),
    help="Where the results go.",
    show_default=True,
)
def finish_model(weights: Path, datasets: tuple[Path, ...], photos: Path, out: Path) -> None:
    """Make trained WEIGHTS ready to ship: measure halo and quality, write both into them, and a model card.

    \b
    imgtx models finish runs/sr-x2/sr-x2.safetensors benchmarks/set5 --photos photos/valid
    """
    from jobs.model_card import finish

    click.echo(finish(weights, photos=photos, benchmarks=datasets, out=out).card)
