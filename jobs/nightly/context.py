"""One night as its stages see it: what was asked, which stores, which folder, and what a person can get wrong."""

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
from imgtx.training.spec import DERIVED, TrainSpec, make_train_spec
from jobs.evaluation.super_resolution import find_datasets
from jobs.nightly.gate import check_gate
from jobs.nightly.images import local_folder
from jobs.nightly.schedule import Schedule
from jobs.nightly.spec import NightlySpec
from jobs.run.tally import Watcher
from pipeline.models.references import local_model
from pipeline.models.store import ModelStore, Pointer
from pipeline.spec import RunSpec, check_spec
from pipeline.storage.checks import check_destination, check_source
from pipeline.storage.store import Store, open_store

NIGHTS = "nights/"


@dataclass(frozen=True)
class Shown:
    """How a night shows itself: lines and the bar of a training on `console`, a run through `watching`."""

    console: Console
    watching: Callable[[], AbstractContextManager[Watcher]]


@dataclass(frozen=True)
class Night:
    """A night's spec, date, stores, and folder on this machine."""

    spec: NightlySpec
    date: str
    folder: Path
    shown: Shown
    archive: Store
    state: Store  # of all nights
    models: ModelStore
    name: str

    @cached_property
    def own(self) -> Store:
        """The part of the state that is this night's."""
        return replace(self.state, uri=f"{self.state.uri.rstrip('/')}/{NIGHTS}{self.date}/")

    @property
    def images(self) -> Path:
        """Cuts of the archive's images."""
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
        """The model's version as everybody names it."""
        return f"{self.models.store.uri.rstrip('/')}/{self.name}@{number}"

    def say(self, stage: str, text: str) -> None:
        self.shown.console.print(
            f"{self.date} {stage}: {text}", highlight=False, soft_wrap=True, markup=False
        )


def default_folder(spec: NightlySpec) -> Path:
    """Where nights work on this machine: a folder for each state, in the user's cache."""
    mark = hashlib.sha256(spec.state.encode()).hexdigest()[:8]
    return user_cache() / "nights" / f"{spec.store_and_name[1]}-{mark}"


def open_night(spec: NightlySpec, day: date | None, folder: Path | None, shown: Shown) -> Night:
    """Return the nightly run of a date, in `folder`/<date>; asks nothing of storage.

    day: by default today in the schedule's time zone.
    """
    day = day or Schedule(**spec.schedule).date_of(datetime.now(UTC))
    archive, state = (open_store(uri, endpoint_url=spec.endpoint_url) for uri in (spec.archive, spec.state))
    uri, name = spec.store_and_name
    models = ModelStore(open_store(uri, endpoint_url=spec.endpoint_url))
    name_of_day = day.isoformat()
    return Night(
        spec, name_of_day, (folder or default_folder(spec)) / name_of_day, shown, archive, state, models, name
    )


def check_night(night: Night) -> None:
    """Everything a person can mend, with UsageError: ends, model, photos, datasets, rule, training, outputs."""
    spec = night.spec
    check_source(night.archive)
    for store in (night.state, night.models.store):
        check_destination(store)
    try:
        night.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--folder {night.folder} cannot be made ({error.strerror}): give another"
        ) from error
    find_datasets([night.valid])
    names = [dataset.name for dataset in find_datasets(night.datasets)]
    if len(set(names)) < len(names):
        raise UsageError(
            f"datasets: of {', '.join(names)} two have one name, by which the gate goes: rename one"
        )
    check_gate(spec.rule, names)
    training = training_spec(night, latest(night).version)
    if spec.largest_side < training.scale * training.crop:
        raise UsageError(
            f"largest_side = {spec.largest_side}; a crop of {training.crop} px at scale {training.scale} needs "
            f"{training.scale * training.crop} or more"
        )
    if spec.upscale:
        check_spec(upscale_spec(night, ""))


def latest(night: Night) -> Pointer:
    latest = night.models.latest(night.name)
    if latest is None:
        raise UsageError(
            f"{night.reference('latest')} is not set, and a night goes on from it: imgtx models import WEIGHTS "
            f"{night.spec.model}, then imgtx models promote"
        )
    return latest


def training_spec(night: Night, begin: str) -> TrainSpec:
    """[train] of the spec, completed by what the version to begin with says of itself.

    Weights that were trained on damage go on so, unless [train] says otherwise: on clean reductions they would lose
    what they are for, and a gate that measures on those would let them pass.
    """
    weights = Path(local_model(night.reference(begin), night.spec.endpoint_url))
    with opened(weights, framework="numpy") as file:
        config, info = read_facts(file, weights)
    night.images.mkdir(parents=True, exist_ok=True)
    began = info.training.get("spec", {})
    kept = (
        {}
        if "degradation" in night.spec.train
        else {n: began[n] for n in ("degradation", "damage") if n in began}
    )
    values = (
        kept
        | night.spec.train
        | {
            "name": night.name,
            "scale": info.scale,
            "train": str(night.images),
            "valid": str(night.valid),
            "init_from": str(weights),
            "licence": night.spec.licence,
            "data_note": night.spec.data_note,
            "model": {name: value for name, value in asdict(config).items() if name not in DERIVED},
        }
    )
    return make_train_spec(values, Path("[train]"))


def upscale_spec(night: Night, model: str) -> RunSpec:
    values = {"source": night.spec.archive} | night.spec.upscale
    return RunSpec(**values, model=model, endpoint_url=night.spec.endpoint_url)
