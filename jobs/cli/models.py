"""`imgtx models`: the models at hand, what they say of themselves, and how they are made ready."""

import json
from pathlib import Path
from typing import Any

import click

from jobs.cli.help import OrderedGroup
from jobs.cli.options import console, endpoint_option, json_option


@click.group(cls=OrderedGroup)
def models() -> None:
    """List, measure, import and promote models.

    \b
    imgtx models list
    imgtx models show sr-x4
    """


@models.command("list")
@click.argument("store", required=False, envvar="IMGTX_STORE")
@endpoint_option
@json_option
def list_models(store: str | None, endpoint_url: str | None, as_json: bool) -> None:
    """List the packaged models and every version in STORE, with what they do and how well.

    STORE is a folder or s3://bucket/prefix, by default the one that IMGTX_STORE names.

    \b
    imgtx models list
    imgtx models list s3://bucket/models
    """
    from jobs.models.tables import model_rows, print_models, print_store, store_rows

    packaged = model_rows()
    stored = store_rows(store, endpoint_url) if store else []
    if as_json:
        click.echo(json.dumps(packaged + stored))
        return
    print_models(packaged, console())
    if store:
        print_store(stored, store, console())


@models.command("show")
@click.argument("model")
@endpoint_option
def show_model(model: str, endpoint_url: str | None) -> None:
    """Print what the weights of MODEL say about themselves, and what was measured, as JSON.

    MODEL is a packaged name, an imgtx weight file, a version in a model store (its card comes too), or another
    model: docs/guides/your-models.md.

    \b
    imgtx models show sr-x4
    """
    from jobs.models.admin import store_facts
    from jobs.models.probe import describe
    from pipeline.models.resolve import exact_reference, local_model

    exact = exact_reference(model, endpoint_url)
    known = describe(local_model(exact, endpoint_url)) | store_facts(exact, endpoint_url)
    click.echo(json.dumps(known, indent=2))


@models.command("probe")
@click.argument("model")
@click.option("--device", help="The device, as torch names it.  [default: the GPU if there is one]")
@click.option(
    "--photos", type=click.Path(path_type=Path), help="Photos to measure on.  [default: imgtx's examples/]"
)
@click.option(
    "--levels",
    type=float,
    default=1.0,
    show_default=True,
    help="The largest difference at a tile's seam, in levels of 255; above it, images are not cut into tiles.",
)
@click.option(
    "--compile",
    is_flag=True,
    help="Also measure torch.compile (minutes), for runs with --compile; without this, earlier findings are dropped.",
)
@click.option(
    "--compile-limit",
    type=float,
    default=900,
    show_default=True,
    metavar="SECONDS",
    help="Give up compiling after this time.",
)
@endpoint_option
@json_option
def probe_model(model: str, endpoint_url: str | None, as_json: bool, **options: Any) -> None:
    """Measure what no model file says: halo, precisions, speed, memory; runs read the answers beside MODEL.

    For a model in storage, the copy on this machine is measured, and runs that start here read the answers.

    \b
    imgtx models probe ./4x-Anything.pth
    imgtx upscale photos/ out/ --model ./4x-Anything.pth --precision auto
    imgtx models probe ./4x-Anything.pth --compile
    imgtx upscale photos/ out/ --model ./4x-Anything.pth --precision auto --compile
    """
    from jobs.models.probe import ProbeOptions, print_probe
    from jobs.models.probe import probe_model as run_probe
    from pipeline.models.resolve import local_model

    found = run_probe(local_model(model, endpoint_url), ProbeOptions(**options))
    click.echo(json.dumps(found.measured | {"info": found.info.to_dict()})) if as_json else print_probe(
        found, console()
    )


@models.command("import")
@click.argument("model")
@click.argument("target", metavar="STORE/NAME")
@endpoint_option
def import_model(model: str, target: str, endpoint_url: str | None) -> None:
    """Put MODEL into a model store as the next version of NAME; its latest does not move.

    MODEL is a weight file of imgtx or of another library, a packaged name, or a version in another store. Files
    of other libraries are converted to safetensors; what imgtx models probe measured comes along. The same weights
    twice are one version.

    \b
    imgtx models import sr-x2 s3://bucket/models/sr-x2
    imgtx models promote s3://bucket/models/sr-x2@0001
    """
    from jobs.models.admin import import_model

    click.echo(import_model(model, target, endpoint_url)[0])


@models.command("promote")
@click.argument("version", metavar="STORE/NAME@VERSION")
@endpoint_option
def promote_model(version: str, endpoint_url: str | None) -> None:
    """Make a version the latest of its model, by hand and without a quality gate.

    \b
    imgtx models promote s3://bucket/models/sr-x2@0002
    """
    from jobs.models.admin import promote
    from jobs.models.tables import format_move

    click.echo(format_move(promote(version, endpoint_url)))


@models.command("rollback")
@click.argument("model", metavar="STORE/NAME")
@endpoint_option
def rollback_model(model: str, endpoint_url: str | None) -> None:
    """Point `latest` back to the previously promoted version; repeat to go further back.

    \b
    imgtx models rollback s3://bucket/models/sr-x2
    """
    from jobs.models.admin import rollback
    from jobs.models.tables import format_move

    click.echo(format_move(rollback(model, endpoint_url)))


@models.command("package")
@click.argument("weights", type=click.Path(path_type=Path))
@click.argument("datasets", nargs=-1, type=click.Path(path_type=Path))
@click.option("--photos", type=click.Path(path_type=Path), help="Clean photos to measure the halo on.")
@click.option(
    "--out",
    default="models",
    type=click.Path(path_type=Path),
    help="A folder for the results.",
    show_default=True,
)
@click.option(
    "--half",
    is_flag=True,
    help="Store the numbers in 16 bits, half the size, and measure the quality with them. Weights for style and for "
    "images from text always are.",
)
def package_model(
    weights: Path, datasets: tuple[Path, ...], photos: Path | None, out: Path, half: bool
) -> None:
    """Make trained WEIGHTS ready to ship: measure halo and quality, write both into them, and a model card.

    Weights for images from text need neither DATASETS nor --photos; folders of captioned pictures as DATASETS are
    measured on, too (imgtx evaluate --protocol captions).

    \b
    imgtx models package runs/sr-x2/sr-x2.safetensors benchmarks/set5 --photos photos/valid
    """
    from jobs.evaluation.model_card import package

    click.echo(package(weights, photos=photos, benchmarks=datasets, out=out, half=half).card)
