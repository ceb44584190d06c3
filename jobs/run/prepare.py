"""Turn a spec into a run that can start: every user mistake is found here, before Ray."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from imgtx.errors import UsageError
from imgtx.models.references import with_files
from pipeline.job import check_spec, make_choosing_job, make_job
from pipeline.ledger.ledger import Ledger
from pipeline.models.resolve import ResolvedModel, resolve_model
from pipeline.planning.plan import Plan, make_plan
from pipeline.sources import Source, located, open_selected
from pipeline.sources.globs import escaped
from pipeline.sources.images import ImageFolder
from pipeline.spec import ACCEPT, Choice, Job, RunSpec
from pipeline.storage.attributes import attributes_of
from pipeline.storage.checks import place_in
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import COPIES, SKIPPED
from pipeline.tasks import get_task
from pipeline.tasks.base import Candidate, Opened

# Rows of a plan that are in memory at a time.
WAVE = 50_000


@dataclass(frozen=True)
class Prepared:
    """A checked run, before Ray: its job, what it reads, its destination and ledger."""

    job: Job
    opened: Opened
    destination: Store
    ledger: Ledger
    run_id: str


def prepare(spec: RunSpec) -> Prepared:
    """Resolve the model and open source and destination, each once; raises UsageError for every user mistake."""
    check_spec(spec)
    task = get_task(spec.task)
    candidates = task.candidates(spec)
    models = {
        name: resolve_model(name, spec.endpoint_url) for name in [c.model for c in candidates] or [spec.model]
    }
    spec = located(spec, task.sources)
    destination = open_store(spec.destination, endpoint_url=spec.endpoint_url)
    source = open_selected(spec, task.sources)
    spec = _apart(_resolved(spec, [*models.values()], source, destination), source, destination)
    source = open_selected(spec, task.sources)
    job = _job(spec, candidates, models)
    source.check(destination)
    inputs = task.open_inputs(job.spec)
    task.check_inputs(inputs, job.spec)
    return Prepared(job, Opened(source, inputs), destination, Ledger(destination), new_run_id())


def new_run_id() -> str:
    """Return the time in UTC and three random digits, such as 20261130T195610-8f3b6e.

    The first three digits after the second are its fraction in 4,096ths, so that ids sort by time: the newest run is
    the last one, also of two that begin within a second.
    """
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}-{now.microsecond * 4096 // 10**6:03x}{uuid.uuid4().hex[:3]}"


def _job(spec: RunSpec, candidates: Sequence[Candidate], models: Mapping[str, ResolvedModel]) -> Job:
    """Return the job with the one model, or with those among which each picture's is chosen."""
    if not candidates:
        (model,) = models.values()
        return make_job(replace(spec, model=model.reference), model.info, model.digest)
    check_spec(spec)
    choices = []
    for one in candidates:
        found = models[one.model]
        made = make_job(replace(spec, model=found.reference), found.info, found.digest)
        choices.append(Choice(made, one.lowest, one.highest))
    return make_choosing_job(spec, choices)


def _resolved(spec: RunSpec, models: Sequence[ResolvedModel], source: Source, destination: Store) -> RunSpec:
    """Return the spec with absolute references, which are the same on every worker and in every later run."""
    settings = dict(spec.settings)
    for option in get_task(spec.task).options:
        if option.place and settings.get(option.name):
            settings[option.name] = open_store(settings[option.name], endpoint_url=spec.endpoint_url).uri
    places = [
        settings[o.name] for o in get_task(spec.task).options if (o.place or o.file) and settings.get(o.name)
    ]
    keys = spec.keys and open_store(spec.keys, endpoint_url=spec.endpoint_url).uri.rstrip("/")
    places += [keys] if keys else []
    # An endpoint that nothing here needs would be in the spec of every retry.
    needed = [
        source.store.endpoint_url,
        destination.endpoint_url,
        *(open_store(place, endpoint_url=spec.endpoint_url).endpoint_url for place in places),
        spec.endpoint_url if any(model.fetched for model in models) else None,
    ]
    return replace(
        spec,
        source=source.uri,
        keys=keys,
        destination=destination.uri,
        settings=settings,
        endpoint_url=next((url for url in needed if url), None),
    )


def _apart(spec: RunSpec, source: Source, destination: Store) -> RunSpec:
    """Return the spec of a glob with a destination inside its root without what is there: outputs are no inputs."""
    inside = place_in(source.store, destination) if spec.source_glob else ""
    outputs = f"/{escaped(inside)}/" if inside else ""
    before = spec.exclude or []
    return replace(spec, exclude=[*before, outputs]) if outputs not in ("", *before) else spec


def plan_run(run: Prepared, *, retry_failed: bool = False) -> Plan:
    """List the source and subtract the ledger; nothing is fetched. Raises UsageError if no item can be processed."""
    spec = run.job.spec
    task, source = get_task(spec.task), run.opened.source
    plan = make_plan(
        task.list(run.opened, spec, local_destination=run.destination.is_local),
        run.ledger,
        recipe=run.job.recipe.digest,
        older_recipes=older_digests(run.job),
        recipes_by_quality=[(c.lowest, c.highest, c.job.recipe.digest) for c in run.job.choices],
        selection=source.selection if isinstance(source, ImageFolder) else None,
        requested_format=spec.format,
        max_megapixels=spec.max_megapixels,
        accept_damage=spec.on_damage == ACCEPT,
        skip_larger_than=task.skip_larger_than(spec),
        retry_failed=retry_failed,
    )
    if plan.listed == plan.counts[SKIPPED] and plan.left_out.num_rows == plan.listed:
        reasons = {r for rows in plan.left_out.tables(WAVE) for r in rows["reason"].unique().to_pylist()}
        besides = f" ({', '.join(_not_listed(plan))} left out)" if _not_listed(plan) else ""
        raise UsageError(task.explain(reasons, spec) or source.why_nothing(plan.listed) + besides)
    return plan


def _not_listed(plan: Plan) -> list[str]:
    return [f"{count} {reason}" for reason, count in plan.not_listed.items() if count]


def older_digests(job: Job) -> list[str]:
    """Return the digests that older versions of imgtx gave to the recipes of a job and of its choices."""
    jobs = [job, *(choice.job for choice in job.choices)]
    return [digest for one in jobs for digest in one.recipe.older_digests]


def keep_inputs(run: Prepared) -> Prepared:
    """Copy the single local files that a run reads to `inputs/` at its destination; return the run that reads these.

    Every worker, `imgtx retry` and `imgtx verify` can then read a table of prompts, a style picture or a LoRA from any
    machine. Folders and buckets are not copied. For the holder of the lease.
    """
    spec, task = run.job.spec, get_task(run.job.spec.task)
    settings = dict(spec.settings)
    for option in task.options:
        if option.file and settings.get(option.name):
            settings[option.name] = _kept(settings[option.name], run)
    source = _kept(spec.source, run) if run.opened.source.kind.single_file else spec.source
    if source != spec.source:
        settings |= task.before_copying(spec)
    model = with_files(spec.model, lambda file: _kept(file, run))
    keys = spec.keys and _kept(spec.keys, run)
    if (source, keys, settings, model) == (spec.source, spec.keys, spec.settings, spec.model):
        return run
    spec = replace(spec, source=source, keys=keys, settings=settings, model=model)
    opened = Opened(open_selected(spec, task.sources), task.open_inputs(spec))
    return replace(run, job=replace(run.job, spec=spec), opened=opened)


def _kept(uri: str, run: Prepared) -> str:
    """Copy a local file and return the copy's URI; return the URI of a file in storage, or of a copy, as it is."""
    root = run.destination.uri.rstrip("/")
    if uri.startswith(f"{root}/{COPIES}") or not open_store(uri).is_local:
        return uri
    with Path(uri).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # Named after its content: an edited table does not change what an earlier run recorded.
    name = f"{COPIES}{digest[:12]}/{Path(uri).name}"
    if run.destination.stat(name) is None:
        run.destination.upload(name, uri, attributes_of(uri, root, times=False))
    return f"{root}/{name}"
