"""What the driver asks of an engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.cluster.pool import Pool

AUTO, LOCAL, RAY = "auto", "local", "ray"
ENGINES = (AUTO, RAY, LOCAL)


class Engine(Protocol):
    """Runs WORK rows through the stages, in passes. Started by the context manager of its module.

    pool: how many processes run at once, and what each of them holds. place: where they run, for the user.
    """

    pool: Pool
    place: str

    def run(self, work: pa.Table, *, alone: bool) -> Iterator[pa.Table]:
        """Yield FINISHED rows as they come. Rows of images whose process ended are missing.

        alone: each image has its process for itself, so that one that ends it takes no other along.
        Raises RunInterruptedError where the run cannot go on but its state is sound, WorkersEndedError where its
        processes end again and again, ModelError where no process can load the model.
        """
        ...

    def drain(self) -> Iterator[pa.Table]:
        """Yield what can still be had within seconds after `run` was interrupted."""
        ...

    @property
    def whole(self) -> bool:
        """Whether the last pass has tried every image."""
        ...

    def machines(self) -> frozenset[str]:
        """Return the ids of the machines that are there now."""
        ...
