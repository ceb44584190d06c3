"""Everything that `imgtx evaluate` and model cards can measure: the tables of each task's file, put together."""

from jobs.evaluation import inpainting, restoration, style_transfer, super_resolution, text_to_image
from jobs.evaluation.protocol import Protocol, TaskEvaluation

# `--degradation` of a super-resolution model, `--protocol` of all others.
REDUCTIONS = super_resolution.PROTOCOLS
PROTOCOLS: dict[str, Protocol] = {
    **restoration.PROTOCOLS,
    **inpainting.PROTOCOLS,
    **style_transfer.PROTOCOLS,
    **text_to_image.PROTOCOLS,
}
TASKS: dict[str, TaskEvaluation] = {
    module.TASK.task: module.TASK
    for module in (super_resolution, restoration, inpainting, style_transfer, text_to_image)
}
