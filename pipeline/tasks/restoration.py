"""Restoration: remove noise, JPEG damage and mild blur at the image's own size."""

from pipeline.tasks.base import Settings, Task
from pipeline.tasks.images import SOURCE_MEASURES, fetch_image, large_image, load_image


def default_model(settings: Settings) -> str:
    """Return the packaged model."""
    return "restore"


RESTORATION = Task(
    name="restoration",
    command="restore",
    summary="Repair every image of a folder or bucket, at its own size.",
    description=(
        "Repair every image under SOURCE into DESTINATION, at its own size. Without masks, noise, JPEG damage and mild "
        "blur of any strength are removed (model restore). With masks, or with damage painted in one colour, holes are "
        "filled (model inpaint), and every other pixel stays as it was."
    ),
    examples=(
        "imgtx restore scans/ clean/",
        "imgtx restore scans/ clean/ --masks masks/ --format png",
        "imgtx restore scans/ clean/ --mask-color '#ff00ff'",
    ),
    default_model=default_model,
    fetch=fetch_image,
    load=load_image,
    large_input=large_image,
    measures=SOURCE_MEASURES,
)
