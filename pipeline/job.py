"""Check a spec against its task and its model, and make the job that is sent to the workers.

Every mistake in a spec is reported here, before Ray starts: what was given, what is allowed, what to do.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from imgtx.codecs import WRITABLE
from imgtx.errors import UsageError
from imgtx.inference.processor import this_processor
from imgtx.models.info import PRECISIONS, ModelInfo, refusal_to_compile
from pipeline.cluster.address import address_of
from pipeline.engines.choice import check_engine, uses_gpu
from pipeline.spec import ACCEPT, AUTO, REFUSE, Choice, Job, Recipe, RunSpec
from pipeline.tasks import TASKS, get_task, tasks_for
from pipeline.tasks.base import Task

# In the reference of a pipeline of diffusers that is offloaded (`pipeline.tasks.text_to_image.OFFLOAD`).
OFFLOADED = "offload=1"


def make_job(spec: RunSpec, info: ModelInfo, model_digest: str) -> Job:
    """Check `spec` against the model that it names and return the job; raises UsageError."""
    check_spec(spec)
    task = get_task(spec.task)
    _check_model(spec, info)
    precision = _precision(spec, info)
    task.check(spec, info)
    # The model's own scale is in the recipe already.
    settings = {
        name: value for name, value in task.recipe(spec).items() if (name, value) != ("scale", info.scale)
    }
    recipe = Recipe(
        spec.task,
        model_digest,
        info.scale,
        spec.format,
        spec.quality,
        precision,
        untiled=bool(info.untiled),
        compiled=spec.compile,
        self_ensemble=spec.self_ensemble,
        unmarked=not spec.provenance,
        settings=settings,
    )
    if not spec.compile:
        # The size of the tiles depends on whether the model is compiled.
        info = replace(info, compiled_tile=0)
    elif refusal := refusal_to_compile(info, spec.model, precision):
        raise UsageError(refusal)
    return Job(spec, info, recipe)


def make_choosing_job(spec: RunSpec, choices: Sequence[Choice]) -> Job:
    """Return the job of a run that chooses among the models of `choices`, whose jobs `make_job` has made.

    Each output is recorded under the recipe of the model that made it, so that other weights for one kind of picture
    make the outputs of that kind again and no others.
    """
    first = choices[0].job
    digests = [(choice.lowest, choice.highest, choice.job.recipe.digest) for choice in choices]
    recipe = replace(first.recipe, model_digest=hashlib.sha256(json.dumps(digests).encode()).hexdigest())
    return Job(spec, first.info, recipe, tuple(choices))


def _precision(spec: RunSpec, info: ModelInfo) -> str:
    """Return the precision to compute in; UsageError for one that the model or this machine's processor lacks.

    The workers of a cluster check their own processors, in `imgtx.load`.
    """
    precision = info.fast if spec.precision == AUTO else spec.precision
    if precision not in info.dtypes:
        raise UsageError(
            f"--precision {precision} was not measured for {spec.model}: expected one of {', '.join(info.dtypes)}"
        )
    refusal = this_processor().refusal(precision)
    if not refusal or address_of(spec) or uses_gpu(spec):
        return precision
    if spec.precision == AUTO:
        return "float32"
    raise UsageError(f"--precision {precision}: {refusal}, or auto")


def _check_model(spec: RunSpec, info: ModelInfo) -> None:
    """Raise UsageError for a model of another task, or one that needs a GPU where there is none."""
    if OFFLOADED in spec.model and not uses_gpu(spec) and not address_of(spec):
        raise UsageError(
            "--offload moves components between CPU and GPU, and this run has no GPU: leave it out"
        )
    if info.blended and spec.self_ensemble:
        raise UsageError(
            f"--self-ensemble with --model {spec.model}: it draws noise by pixel position, and mirrored views would "
            "get other noise; leave it out"
        )
    if info.task in get_task(spec.task).models:
        return
    suitable = tasks_for(info.task)
    if not suitable:
        raise UsageError(
            f"--model {spec.model} is for {info.task}, which no command runs yet: this one does {spec.task}"
        )
    ways = " or ".join(map(_way_to_start, suitable))
    raise UsageError(
        f"--model {spec.model} is for {info.task}, this command does {spec.task}: {ways} runs it, and `imgtx models "
        "list` shows others"
    )


def _way_to_start(task: Task) -> str:
    """Return the command of a task, with the options that choose it."""
    options = [option.flag.strip() for option in task.options if option.name in task.chosen_by]
    return f"imgtx {task.command}" + (f" with {' or '.join(options)}" if options else "")


def check_spec(spec: RunSpec) -> None:
    """Check what needs no model and no storage; raises UsageError."""
    if spec.task not in TASKS:
        raise UsageError(f"unknown task {spec.task!r}: expected one of {', '.join(TASKS)}")
    task = get_task(spec.task)
    formats = (*(("same",) if task.keeps_format else ()), *WRITABLE)
    if spec.format not in formats:
        raise UsageError(f"--format {spec.format}: must be one of {', '.join(formats)}")
    if not 1 <= spec.quality <= 100:
        raise UsageError(f"--quality {spec.quality}: must be 1 to 100")
    if spec.precision not in (*PRECISIONS, AUTO):
        raise UsageError(f"--precision {spec.precision}: must be one of {', '.join(PRECISIONS)}, {AUTO}")
    if spec.on_damage not in (REFUSE, ACCEPT):
        raise UsageError(f"--on-damage {spec.on_damage}: must be one of {REFUSE}, {ACCEPT}")
    for name in ("limit", "workers", "min_workers", "max_megapixels", "stream_megapixels"):
        value = getattr(spec, name)
        # Not `value <= 0`: nan must fail too.
        if value is not None and not value > 0:
            option = name.endswith("workers") or name == "limit"
            given = f"--{name.replace('_', '-')} {value}" if option else f"--set {name}={value}"
            raise UsageError(f"{given}: give a number greater than 0")
    if spec.min_workers and not spec.min_workers <= (spec.workers or 0):
        most = f"--workers is {spec.workers}" if spec.workers else "--workers is not given"
        raise UsageError(
            f"--min-workers {spec.min_workers}: {most}; give --workers a number that is at least as large"
        )
    if spec.gpus is not None and not spec.gpus >= 0:
        raise UsageError(f"--gpus {spec.gpus}: give 0 for none, or a number of GPUs")
    check_engine(spec)
    for setting in task.options:
        setting.check(spec)
    for name in ("include", "exclude"):
        if not all(isinstance(glob, str) for glob in getattr(spec, name) or ()):
            raise UsageError(f"{name} = {getattr(spec, name)!r}: must be a list of globs such as '*.jpg'")
    _check_limit("--max-failed", spec.max_failed, spec.failures_allowed)
    if spec.max_skipped is not None:
        _check_limit("--max-skipped", spec.max_skipped, spec.skips_allowed)


def _check_limit(option: str, limit: str, allowed_of: Callable[[int], int]) -> None:
    """Raise UsageError unless a limit is a share up to 100% or a count."""
    try:
        allowed = allowed_of(100)
    except (ValueError, OverflowError):
        allowed = -1
    if allowed < 0 or (allowed > 100 and limit.endswith("%")):
        raise UsageError(f"{option} {limit}: give a share such as 1% or a count such as 20")
