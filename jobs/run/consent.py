"""Ask before a run makes most of a finished archive again, because an option, the model or imgtx is another."""

from dataclasses import dataclass

from pipeline.planning.plan import Plan
from pipeline.spec import RunSpec


@dataclass(frozen=True)
class Replacement:
    """What a run would do to outputs whose sources have not changed.

    replaced: outputs that are written again under their name. deleted: those that get another, as in another format.
    images: listed images, with or without an output.
    """

    replaced: int
    deleted: int
    images: int

    @classmethod
    def of(cls, plan: Plan, spec: RunSpec) -> "Replacement":
        """Return what a run of this plan would do at most: `--limit` may end it earlier."""
        most = plan.work.num_rows if spec.limit is None else spec.limit
        return cls(min(plan.replaces, most), min(plan.deletes, most), plan.images)

    @property
    def is_most(self) -> bool:
        """Whether more than half of the archive is made again."""
        return 2 * (self.replaced + self.deleted) > self.images

    def __str__(self) -> str:
        """Return it in words: `replaces 120 outputs and deletes 3 that get another name`."""
        parts = [f"replaces {self.replaced} existing outputs"] if self.replaced else []
        parts += [f"deletes {self.deleted} existing outputs that get another name"] if self.deleted else []
        return " and ".join(parts)
