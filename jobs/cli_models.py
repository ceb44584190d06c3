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
    """Print everything the weights of MODEL say of themselves, and what was measured of them, as JSON.

    MODEL is a packaged name, an imgtx weight file, or anybody's model: docs/run-your-model.md.
    """
    from jobs.probe import describe

    click.echo(json.dumps(describe(model), indent=2))


@models.command("probe")
@click.argument("model")
@click.option("--device", help="As torch names it.  [default: the GPU if there is one]")
@click.option(
    "--photos", type=click.Path(path_type=Path), help="Photos to measure on.  [default: imgtx's examples/]"
)
@click.option(
    "--levels",
    type=float,
    default=1.0,
    show_default=True,
    help="How much of 255 a tile's seam may show before the model counts as one that cannot be cut.",
)
@json_option
def probe_model(model: str, device: str | None, photos: Path | None, levels: float, as_json: bool) -> None:
    """Measure what no file says: halo, precisions, speed, memory; runs find the answers beside MODEL.

    \b
    imgtx models probe ./4x-Anything.pth
    imgtx upscale photos/ out/ --model ./4x-Anything.pth --precision auto
    """
    from jobs.probe import print_probe
    from jobs.probe import probe_model as run_probe

    found = run_probe(model, photos=photos, device=device, levels=levels)
    click.echo(json.dumps(found.measured | {"info": found.info.to_dict()})) if as_json else print_probe(
        found, console()
    )


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
