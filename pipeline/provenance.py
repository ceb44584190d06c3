"""What a job's outputs say of their making."""

from imgtx import __version__
from imgtx.codecs import Maker
from pipeline.spec import Job
from pipeline.tasks import get_task


def maker_of(job: Job) -> Maker | None:
    """Return what made a job's outputs; None where they shall not say it. Paths and users are never part of it."""
    if job.recipe.unmarked:
        return None
    task = get_task(job.recipe.task)
    return Maker(
        f"imgtx {__version__}", task.name, job.info.name, job.recipe.model_digest, task.digital_source_type
    )
