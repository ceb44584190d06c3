"""Super-resolution: enlarge every image two, three or four times."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from imgtx.errors import UsageError
from imgtx.models.choice import AUTO, CLEAN, CLEAN_QUALITY, NETWORKS, PHOTO, network_of
from pipeline.tasks.base import Candidate, Option, Settings, Task
from pipeline.tasks.images import SOURCE_MEASURES, fetch_image, large_image, load_image

if TYPE_CHECKING:
    from imgtx.codecs import Header
    from imgtx.codecs.spool import SpooledPicture
    from imgtx.models.info import ModelInfo
    from pipeline.spec import Job, RunSpec

SCALE = Option(
    "scale",
    type=int,
    metavar="N",
    help="2, 3 or 4. Which packaged model enlarges: docs/guides/which-model.md.  [default: 2]",
)
KIND = Option(
    "kind",
    help="photo or clean: the packaged models for JPEGs of phones and the web, or for clean pictures. auto chooses for "
    f"each picture by its header: clean for lossless files and JPEGs of quality {CLEAN_QUALITY} and more.  "
    "[default: auto]",
    choices=(AUTO, PHOTO, CLEAN),
)
# The ledger's `quality` of the pictures of each kind.
BOUNDS = {CLEAN: (CLEAN_QUALITY, 100), PHOTO: (0, CLEAN_QUALITY - 1)}


def model_for(settings: Settings) -> str:
    """Return the packaged model for the given scale and kind, or AUTO; raises UsageError if there is none."""
    scale, kind = settings.get(SCALE.name, 2), settings.get(KIND.name, AUTO)
    if scale not in NETWORKS[CLEAN]:
        scales = ", ".join(map(str, NETWORKS[CLEAN]))
        raise UsageError(f"--scale {scale}: the packaged models enlarge by {scales}; give --model for others")
    # Another value of --kind is reported with all that it may be, by its option.
    return network_of(kind, scale) if kind in NETWORKS else AUTO


def candidates(spec: RunSpec) -> list[Candidate]:
    """Return a model for each kind of picture, where the spec does not name one.

    Raises UsageError for a kind beside a model that is not of that kind.
    """
    scale, kind = SCALE.of(spec) or 2, KIND.of(spec)
    if spec.model != AUTO:
        if kind and not (kind in NETWORKS and spec.model == network_of(kind, scale)):
            raise UsageError(
                f"--kind {kind} chooses among the packaged models, and --model {spec.model} is one model: leave one out"
            )
        return []
    return [Candidate(network_of(kind, scale), *BOUNDS[kind]) for kind in NETWORKS]


def choose(picture: Header | SpooledPicture, job: Job) -> Job:
    """Return the job of the model for a picture, of which only the header is asked."""
    fitting = (choice.job for choice in job.choices if choice.lowest <= picture.quality <= choice.highest)
    return next(fitting, job)


def check(spec: RunSpec, info: ModelInfo) -> None:
    """Raise UsageError for a scale that the model does not have: `--scale` only chooses a model, which decides it."""
    scale = SCALE.of(spec)
    if scale is not None and scale != info.scale:
        packaged = {name for networks in NETWORKS.values() for name in networks.values()}
        same = spec.model.replace(f"x{info.scale}", f"x{scale}") if spec.model in packaged else ""
        instead = (
            f"give --model {same} for x{scale}, or leave one out" if same in packaged else "leave one out"
        )
        raise UsageError(
            f"--scale {scale} contradicts --model {spec.model}, which enlarges x{info.scale}: {instead}"
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
        "imgtx upscale s3://bucket/in/ s3://bucket/out/ --endpoint-url http://localhost:9000",
    ),
    default_model=model_for,
    options=(SCALE, KIND),
    candidates=candidates,
    choose=choose,
    fetch=fetch_image,
    load=partial(load_image, choose=choose),
    large_input=large_image,
    check=check,
    measures=SOURCE_MEASURES,
)
