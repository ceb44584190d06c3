"""Super-resolution: enlarge every image two, three or four times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgtx.errors import UsageError
from pipeline.tasks.base import Option, Settings, Task
from pipeline.tasks.images import SOURCE_MEASURES, fetch_image, large_image, load_image

if TYPE_CHECKING:
    from imgtx.models.info import ModelInfo
    from pipeline.spec import RunSpec

SCALE = Option(
    "scale",
    type=int,
    metavar="N",
    help="2, 3 or 4: enlarge by the packaged model sr-x2, sr-x3 or sr-x4.  [default: 2]",
)


def model_for(settings: Settings) -> str:
    """Return the packaged model for the given scale; raises UsageError if there is none."""
    from imgtx.models.weight_file import packaged_models

    scale = settings.get(SCALE.name, 2)
    name = f"sr-x{scale}"
    known = packaged_models()
    if name not in known:
        scales = ", ".join(sorted(n for m in known if (n := m.removeprefix("sr-x")).isdecimal()))
        raise UsageError(f"--scale {scale}: the packaged models enlarge by {scales}; give --model for others")
    return name


def check(spec: RunSpec, info: ModelInfo) -> None:
    """Raise UsageError for a scale that the model does not have: `--scale` only chooses a model, which decides it."""
    scale = SCALE.of(spec)
    if scale is not None and scale != info.scale:
        raise UsageError(
            f"--scale {scale} contradicts --model {spec.model}, which enlarges x{info.scale}: leave one out"
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
    options=(SCALE,),
    fetch=fetch_image,
    load=load_image,
    large_input=large_image,
    check=check,
    measures=SOURCE_MEASURES,
)
