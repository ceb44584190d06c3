"""The context shared by the stages of a nightly run, and the checks made before it starts."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path

from rich.console import Console

from imgtx.errors import UsageError
from imgtx.files import user_cache
from imgtx.models.weight_file import opened, read_facts
from imgtx.training.spec import DERIVED, TrainSpec, make_train_spec, with_current_names
from jobs.evaluation.datasets import find_datasets
from jobs.nightly.gate import check_gate
from jobs.nightly.images import local_folder
from jobs.nightly.schedule import Schedule
from jobs.nightly.spec import NightlySpec
from jobs.run.tally import Watcher
from pipeline.job import check_spec
from pipeline.models.resolve import local_model
from pipeline.models.store import ModelStore, Pointer
from pipeline.spec import RunSpec
from pipeline.storage.checks import check_destination, check_source
from pipeline.storage.store import Store, open_store

NIGHTS = "nights/"


@dataclass(frozen=True)
class NightlyConsole:
    """Where a nightly run shows its progress: lines on `console`, the run of its last stage with `watch_run`."""

    console: Console
    watch_run: Callable[[], AbstractContextManager[Watcher]]


@dataclass(frozen=True)
class NightlyRun:
    """The spec, date and stores of a nightly run, and its folder on this machine."""

    spec: NightlySpec
    date: str
    folder: Path
    display: NightlyConsole
    archive: Store
    state: Store
    models: ModelStore
    name: str

    @cached_property
    def record(self) -> Store:
        """The part of the state that belongs to this date."""
        return replace(self.state, uri=f"{self.state.uri.rstrip('/')}/{NIGHTS}{self.date}/")

    @property
    def images(self) -> Path:
        """The folder of the crops to train on."""
        return self.folder / "images"

    @cached_property
    def valid(self) -> Path:
        return local_folder(self.spec.valid, self.folder / "valid", self.spec.endpoint_url)

    @cached_property
    def datasets(self) -> list[Path]:
        places = enumerate(self.spec.datasets)
        uris = [local_folder(u, self.folder / "datasets" / str(n), self.spec.endpoint_url) for n, u in places]
        return uris or [self.valid]

    def reference(self, number: str) -> str:
        """Return the reference of a version of the model: STORE/NAME@VERSION."""
        return f"{self.models.store.uri.rstrip('/')}/{self.name}@{number}"

    def log(self, stage: str, text: str) -> None:
        """Print a line about a stage."""
        self.display.console.print(
            f"{self.date} {stage}: {text}", highlight=False, soft_wrap=True, markup=False
        )


def default_folder(spec: NightlySpec) -> Path:
    """Return the working folder of all dates: one per state, in the user's cache."""
    mark = hashlib.sha256(spec.state.encode()).hexdigest()[:8]
    return user_cache() / "nights" / f"{spec.store_and_name[1]}-{mark}"


def open_nightly_run(
    spec: NightlySpec, day: date | None, folder: Path | None, display: NightlyConsole
) -> NightlyRun:
    """Return the nightly run of a date, in `folder`/<date>; asks nothing of storage.

    day: by default today in the schedule's time zone.
    """
    day = day or Schedule(**spec.schedule).date_of(datetime.now(UTC))
    work = (folder or default_folder(spec)) / day.isoformat()
    archive, state = (open_store(uri, endpoint_url=spec.endpoint_url) for uri in (spec.archive, spec.state))
    uri, name = spec.store_and_name
    models = ModelStore(open_store(uri, endpoint_url=spec.endpoint_url))
    return NightlyRun(spec, day.isoformat(), work, display, archive, state, models, name)


def check_nightly_run(nightly: NightlyRun) -> None:
    """Raise UsageError for any mistake in the spec: stores, model, photos, datasets, gate, training, outputs."""
    spec = nightly.spec
    check_source(nightly.archive)
    for store in (nightly.state, nightly.models.store):
        check_destination(store)
    try:
        nightly.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--folder {nightly.folder} cannot be created ({error.strerror}): give another folder"
        ) from error
    find_datasets([nightly.valid])
    names = [dataset.name for dataset in find_datasets(nightly.datasets)]
    if len(set(names)) < len(names):
        raise UsageError(
            f"datasets: two of {', '.join(names)} have the same name, and the gate needs different ones: rename one"
        )
    check_gate(spec.rule, names)
    training = training_spec(nightly, latest(nightly).version)
    if spec.largest_side < training.scale * training.crop:
        raise UsageError(
            f"largest_side = {spec.largest_side}; a crop of {training.crop} px at scale {training.scale} needs "
            f"{training.scale * training.crop} or more"
        )
    if spec.upscale:
        check_spec(upscale_spec(nightly, ""))


def latest(nightly: NightlyRun) -> Pointer:
    """Return the pointer to the latest version; UsageError if there is none."""
    latest = nightly.models.latest(nightly.name)
    if latest is None:
        raise UsageError(
            f"{nightly.reference('latest')} is not set, and training continues from it: imgtx models import WEIGHTS "
            f"{nightly.spec.model}, then imgtx models promote"
        )
    return latest


def training_spec(nightly: NightlyRun, begin: str) -> TrainSpec:
    """Return the spec's [train] table, completed with the facts of the version to start from.

    Weights trained on a degradation continue on it unless [train] sets another: on clean reductions they would lose
    what they are for, and a gate that measures on those would accept them.
    """
    weights = Path(local_model(nightly.reference(begin), nightly.spec.endpoint_url))
    with opened(weights, framework="numpy") as file:
        config, info = read_facts(file, weights)
    nightly.images.mkdir(parents=True, exist_ok=True)
    began = with_current_names(info.training.get("spec", {}))
    kept = (
        {}
        if "degradation" in nightly.spec.train
        else {n: began[n] for n in ("degradation", "damage") if n in began}
    )
    values = (
        kept
        | nightly.spec.train
        | {
            "name": nightly.name,
            "scale": info.scale,
            "train": str(nightly.images),
            "valid": str(nightly.valid),
            "init_from": str(weights),
            "licence": nightly.spec.licence,
            "data_note": nightly.spec.data_note,
            "model": {name: value for name, value in asdict(config).items() if name not in DERIVED},
        }
    )
    return make_train_spec(values, Path("[train]"))


def upscale_spec(nightly: NightlyRun, model: str) -> RunSpec:
    """Return the run of the last stage: the archive with this model, as [upscale] says."""
    values = {"source": nightly.spec.archive} | nightly.spec.upscale
    return RunSpec(**values, model=model, endpoint_url=nightly.spec.endpoint_url)
