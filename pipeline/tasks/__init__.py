"""Tasks, one file each: everything a run needs to know about its kind of work. A new one is a module and a line."""

from pipeline.tasks.base import Option, Task
from pipeline.tasks.inpainting import INPAINTING
from pipeline.tasks.restoration import RESTORATION
from pipeline.tasks.style_transfer import STYLE_TRANSFER
from pipeline.tasks.super_resolution import SUPER_RESOLUTION
from pipeline.tasks.text_to_image import TEXT_TO_IMAGE

TASKS = {
    task.name: task
    for task in (
        SUPER_RESOLUTION,
        RESTORATION,
        INPAINTING,
        STYLE_TRANSFER,
        TEXT_TO_IMAGE,
    )
}


def get_task(name: str) -> Task:
    """Return the task of that name; KeyError where there is none (`pipeline.job.check_spec` reports it)."""
    return TASKS[name]


def commands() -> dict[str, list[Task]]:
    """Return every command that runs a task, with its tasks, in the order of the table."""
    found: dict[str, list[Task]] = {}
    for task in TASKS.values():
        found.setdefault(task.command, []).append(task)
    return found


def tasks_for(model_task: str) -> list[Task]:
    """Return the tasks that run models whose info names that task."""
    return [task for task in TASKS.values() if model_task in task.models]


def options_of(command: str) -> list[Option]:
    """Return the options of a command's tasks, each once."""
    return list({o.name: o for task in commands()[command] for o in task.options}.values())


def choose_task(command: str, given: set[str]) -> Task:
    """Return the task of a command that the options in `given` choose."""
    tasks = commands()[command]
    chosen = [task for task in tasks if given & {*task.chosen_by}]
    return (chosen or [task for task in tasks if not task.chosen_by] or tasks)[0]
