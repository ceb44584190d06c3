"""A made-up task: pictures of one colour, three for each line of a table, darker from one to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.tasks.base import Task
from pipeline.tasks.images import load_canvas

if TYPE_CHECKING:
    from pipeline.spec import Job
    from pipeline.tables.rows import Row
    from pipeline.tasks.base import Opened


def fetch(row: Row, opened: Opened) -> Row:
    """Fetch nothing: the row has only conditions."""
    return row


def load(row: Row, job: Job) -> Row:
    """Return an empty picture; the model gets the colour as the row's condition."""
    return load_canvas(row, job, height=16, width=24)


COLOURS = Task(
    name="colours",
    command="colours",
    summary="Draw three pictures for each line of a table of colours.",
    description="Draw three pictures for each line of the CSV table SOURCE: a name and three levels.",
    examples=("imgtx colours table.csv out/ --model flat:model.flat",),
    default_model=lambda settings: "flat:model.flat",
    models=frozenset({"restoration"}),
    sources=("colour_table",),
    keeps_format=False,
    default_format="png",
    fetch=fetch,
    load=load,
)
