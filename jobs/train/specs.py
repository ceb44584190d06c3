"""Which kind of training a spec file is for."""

from pathlib import Path
from typing import Any

from imgtx.errors import UsageError
from imgtx.training.spec import make_train_spec
from imgtx.training.state import Spec
from imgtx.training.text_to_image_spec import OBJECTIVE, make_text_to_image_spec


def make_spec(values: dict[str, Any], path: Path, *, on_ray: bool) -> Spec:
    """Check the values of a spec by its `objective`; the UsageError names the field, and `path`."""
    objective = values.get("objective")
    if objective is None:
        return make_train_spec(values, path, folders=not on_ray)
    if objective != OBJECTIVE:
        raise UsageError(
            f"{path}: objective = {objective!r}: must be {OBJECTIVE}, or left out for other trainings"
        )
    if on_ray:
        raise UsageError(
            f"{path}: --workers is not for {OBJECTIVE}, which trains on one machine: leave it out"
        )
    return make_text_to_image_spec(values, path)
