"""Super-resolution: enlarge every image, by a factor or to a size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from imgtx.errors import UsageError
from imgtx.models.choice import AUTO, CLEAN, CLEAN_QUALITY, NETWORKS, PHOTO, network_for
from pipeline.tasks.base import Candidate, Option, Settings, Task
from pipeline.tasks.images import (
    SOURCE_MEASURES,
    fetch_image,
    is_untouched,
    large_image,
    load_image,
    skipped_for_size,
    untouched,
)

if TYPE_CHECKING:
    from imgtx.codecs import Header
    from imgtx.codecs.spool import SpooledPicture
    from imgtx.models.info import ModelInfo
    from pipeline.spec import Job, RunSpec
    from pipeline.tables.rows import Row

SCALE = Option(
    "scale",
    type=float,
    metavar="N",
    help="How many times as large, up to 4: 2, 3, 4, or any number between, by the next larger model and an exact "
    "reduction. Which packaged model enlarges: docs/guides/which-model.md.  [default: 2; with --long-side or "
    "--max-megapixels-out as much as they ask for]",
)
KIND = Option(
    "kind",
    help="photo or clean: the packaged models for JPEGs of phones and the web, or for clean pictures. auto chooses for "
    f"each picture by its header: clean for lossless files and for JPEGs of quality {CLEAN_QUALITY} and more.  "
    "[default: auto]",
    choices=(AUTO, PHOTO, CLEAN),
)
LONG_SIDE = Option(
    "long_side",
    type=int,
    metavar="N",
    help="Enlarge until the longer side has N pixels. Pictures that have them are copied.",
)
MOST_OUT = Option(
    "max_megapixels_out",
    type=float,
    metavar="N",
    help="Enlarge to N megapixels at most. Pictures that have them are copied.",
)
SKIPPED_ABOVE = Option(
    "skip_larger_than",
    type=int,
    metavar="N",
    help="Skip pictures with a side of more than N pixels: they get no output.",
)
LARGEST = max(NETWORKS[CLEAN])
# What the ledger notes of outputs.
NOTES = {
    "below-long-side": "the output's longer side has fewer pixels than --long-side asks for: packaged models enlarge "
    f"up to {LARGEST} times, others by their own scale",
}
# The ledger's `quality` of the pictures of each kind.
BOUNDS = {CLEAN: (CLEAN_QUALITY, 100), PHOTO: (0, CLEAN_QUALITY - 1)}


def model_for(settings: Settings) -> str:
    """Return the packaged model for the given scale, sizes and kind, or AUTO; raises UsageError if there is none."""
    scale, kind = settings.get(SCALE.name, 2), settings.get(KIND.name, AUTO)
    if not 1 < scale <= LARGEST:
        raise UsageError(
            f"--scale {scale:g}: the packaged models enlarge by more than 1 and at most {LARGEST}; give --model for "
            "others"
        )
    # Another value of --kind is reported with all that it may be, by its option.
    return network_for(kind, scale)[0] if kind in NETWORKS and not has_sizes(settings) else AUTO


def has_sizes(settings: Settings) -> bool:
    """Return whether the output's size is asked for, so that each picture needs a scale of its own."""
    return bool(settings.get(LONG_SIDE.name) or settings.get(MOST_OUT.name))


def most(spec: RunSpec) -> float:
    """Return by how much a picture is enlarged at most, whatever sizes are asked for."""
    return SCALE.of(spec) or (LARGEST if has_sizes(spec.settings) else 2)


def candidates(spec: RunSpec) -> list[Candidate]:
    """Return the models for each kind of picture, where the spec does not name one: the smallest scale first.

    Raises UsageError for a kind beside a model that is not of that kind.
    """
    kind, factor = KIND.of(spec), most(spec)
    if spec.model != AUTO:
        if kind and not (kind in NETWORKS and spec.model == network_for(kind, factor)[0]):
            raise UsageError(
                f"--kind {kind} chooses among the packaged models, and --model {spec.model} is one model: leave one out"
            )
        return []
    found = []
    for each in NETWORKS:
        asked = kind if kind in NETWORKS else each
        name, largest = network_for(asked, factor)
        scales = [scale for scale in sorted(NETWORKS[asked]) if scale <= largest]
        names = [NETWORKS[asked][scale] for scale in scales] if has_sizes(spec.settings) else [name]
        found += [Candidate(name, *BOUNDS[each]) for name in names]
    return found


def choose(picture: Header | SpooledPicture, job: Job) -> Job:
    """Return the job of the model for a picture, of which only the header is asked."""
    fitting = [c.job for c in job.choices if c.lowest <= picture.quality <= c.highest]
    if not fitting:
        return job
    factor = enlargement(picture.height, picture.width, job.spec, most(job.spec))
    return next((one for one in fitting if one.info.scale >= factor), fitting[-1])


def enlargement(height: int, width: int, spec: RunSpec, limit: float) -> float:
    """Return by how much a picture is to be enlarged: at most `limit`, and 1 where it is large enough."""
    factor = limit
    if long_side := LONG_SIDE.of(spec):
        factor = min(factor, long_side / max(height, width))
    if megapixels := MOST_OUT.of(spec):
        factor = min(factor, math.sqrt(megapixels * 1e6 / (height * width)))
    return max(1.0, factor)


def output_size(height: int, width: int, job: Job) -> tuple[int, int]:
    """Return the output's height and width in pixels; those of the input where it is large enough."""
    spec, limit = job.spec, min(SCALE.of(job.spec) or job.info.scale, job.info.scale)
    factor = enlargement(height, width, spec, limit)
    if factor == limit and factor == int(factor):
        return height * int(factor), width * int(factor)
    if factor == 1.0:
        return height, width
    size = [max(1, math.floor(side * factor + 0.5)) for side in (height, width)]
    # So that rounding changes neither what is asked for exactly, nor what must not be exceeded.
    if long_side := LONG_SIDE.of(spec):
        size[int(width > height)] = min(size[int(width > height)], long_side)
    if megapixels := MOST_OUT.of(spec):
        while size[0] * size[1] > megapixels * 1e6:
            size = [max(side, new - 1) for side, new in zip((height, width), size, strict=True)]
    return size[0], size[1]


def size_notes(height: int, width: int, job: Job) -> tuple[str, ...]:
    """Return the note of an output that stays smaller than `--long-side` though no other option keeps it small."""
    long_side = LONG_SIDE.of(job.spec)
    if not long_side or SCALE.of(job.spec):
        return ()
    most = job.info.scale
    reached = enlargement(height, width, job.spec, most) < most or max(height, width) * most >= long_side
    return () if reached else ("below-long-side",)


def skip_larger_than(spec: RunSpec) -> int | None:
    """Return the longest side of a picture that is not skipped."""
    return SKIPPED_ABOVE.of(spec)


def recipe(spec: RunSpec) -> dict[str, float]:
    """Return what decides the output's size. `--skip-larger-than` decides no pixel of an output."""
    if not has_sizes(spec.settings):
        return {"scale": float(scale)} if (scale := SCALE.of(spec)) else {}
    asked = {option.name: option.of(spec) for option in (LONG_SIDE, MOST_OUT)}
    return {"limit": float(most(spec))} | {name: float(value) for name, value in asked.items() if value}


def load(row: Row, job: Job) -> Row:
    """Return a fetched row with the tiles of its picture, without any if that is skipped or large enough."""
    if row.get("large"):
        return row
    from imgtx.codecs import read_header
    from pipeline.spec import ACCEPT

    header = read_header(row["data"], accept_damage=job.spec.on_damage == ACCEPT)
    if skipped := skipped_for_size(header.height, header.width, skip_larger_than(job.spec)):
        del row["data"]
        size = {"in_height": header.height, "in_width": header.width, "quality": header.quality}
        return row | size | skipped
    own = choose(header, job)
    if is_untouched(header.height, header.width, output_size(header.height, header.width, own), own):
        return untouched(row, job, header)
    return load_image(row, job, choose=choose)


def check(spec: RunSpec, info: ModelInfo) -> None:
    """Raise UsageError for sizes that cannot be, and a scale that the model does not reach."""
    for option in (LONG_SIDE, MOST_OUT, SKIPPED_ABOVE):
        value = option.of(spec)
        # Not `value <= 0`: nan must fail too.
        if value is not None and not value > 0:
            raise UsageError(f"{option.flag}{value:g}: give a number greater than 0")
    scale = SCALE.of(spec)
    if scale is None or has_sizes(spec.settings):
        return
    if not scale > 1:
        raise UsageError(f"--scale {scale:g}: give a number greater than 1")
    if scale > info.scale:
        of_kind = [kind for kind, networks in NETWORKS.items() if spec.model in networks.values()]
        same = network_for(of_kind[0], scale)[0] if of_kind and scale <= LARGEST else ""
        instead = f"give --model {same} for x{scale:g}, or leave one out" if same else "leave one out"
        raise UsageError(
            f"--scale {scale:g} contradicts --model {spec.model}, which enlarges x{info.scale}: {instead}"
        )


SUPER_RESOLUTION = Task(
    name="super-resolution",
    command="upscale",
    summary="Enlarge every image of a folder or bucket.",
    description=(
        "Enlarge every image under SOURCE into DESTINATION. Outputs mirror the source tree under DESTINATION/images; "
        "the ledger beside them has one row for each key. Rerun the same command to process only what is new, changed "
        "or left over."
    ),
    examples=(
        "imgtx upscale photos/ out/ --scale 4 --format png",
        "imgtx upscale photos/ out/ --long-side 3840 --skip-larger-than 3000",
        "imgtx upscale s3://bucket/in/ s3://bucket/out/ --endpoint-url http://localhost:9000",
    ),
    default_model=model_for,
    options=(SCALE, KIND, LONG_SIDE, MOST_OUT, SKIPPED_ABOVE),
    candidates=candidates,
    choose=choose,
    fetch=fetch_image,
    load=load,
    large_input=large_image,
    check=check,
    recipe=recipe,
    output_size=output_size,
    size_notes=size_notes,
    skip_larger_than=skip_larger_than,
    measures=SOURCE_MEASURES,
)
