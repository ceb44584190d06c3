"""A made-up task: every image upside down, then through a model that restores."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pipeline.tasks.base import Task
from pipeline.tasks.images import SOURCE_MEASURES, fetch_image, load_image

if TYPE_CHECKING:
    import numpy as np

    from imgtx.codecs import Picture
    from pipeline.spec import Job
    from pipeline.tables.rows import Row
    from pipeline.tasks.base import Measures


def upside_down(picture: Picture, row: Row, job: Job) -> tuple[np.ndarray, Measures]:
    """Return the rows of pixels in the opposite order, and how many there are."""
    return picture.pixels[::-1], {"rows": float(len(picture.pixels))}


FLIP = Task(
    name="flip",
    command="flip",
    summary="Turn every image upside down.",
    description="Turn every image under SOURCE upside down.",
    examples=("imgtx flip photos/ out/",),
    default_model=lambda settings: "restore",
    models=frozenset({"restoration"}),
    fetch=fetch_image,
    load=partial(load_image, model_input=upside_down),
    measures=SOURCE_MEASURES | {"rows": "rows of pixels"},
)
