"""Which kind of training a spec file is for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from imgtx.errors import UsageError
from imgtx.training.spec import make_train_spec
from imgtx.training.state import Spec
from imgtx.training.style import spec as style_spec
from imgtx.training.text_to_image import spec as text_to_image_spec

# By `objective`; all of them train on one machine.
MAKERS: dict[str, Callable[[dict[str, Any], Path], Spec]] = {
    text_to_image_spec.OBJECTIVE: text_to_image_spec.make_text_to_image_spec,
    style_spec.OBJECTIVE: style_spec.make_style_spec,
}


def make_spec(values: dict[str, Any], path: Path, *, on_ray: bool) -> Spec:
    """Check the values of a spec by its `objective`; the UsageError names the field, and `path`."""
    objective = values.get("objective")
    if objective is None:
        return make_train_spec(values, path, folders=not on_ray)
    if objective not in MAKERS:
        raise UsageError(
            f"{path}: objective = {objective!r}: must be {' or '.join(MAKERS)}, or left out for other trainings"
        )
    if on_ray:
        raise UsageError(
            f"{path}: --workers is not for {objective}, which trains on one machine: leave it out"
        )
    return MAKERS[objective](values, path)
