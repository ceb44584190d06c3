"""Define a task: everything a run needs to know about one kind of work.

A task is a module in this folder with one `Task` in it and one line in `pipeline/tasks/__init__.py`. Its command,
`imgtx plan`, `imgtx submit`, spec files and the generated reference follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imgtx.errors import UsageError

# For annotations alone: the command line reads this file for every `--help`, which must not wait for Arrow.
if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pyarrow as pa

    from imgtx.codecs import Header
    from imgtx.codecs.spool import SpooledPicture
    from imgtx.imageops.geometry import Tile
    from imgtx.models.info import ModelInfo
    from pipeline.ledger.ledger import Ledger
    from pipeline.sources import Source
    from pipeline.spec import Job, RunSpec
    from pipeline.storage.store import Store
    from pipeline.tables.rows import Row

    ReadTile = Callable[[Tile], np.ndarray]

Settings = Mapping[str, Any]
Measures = dict[str, float]


@dataclass(frozen=True)
class Option:
    """A setting of a task: a name in spec files and for `--set`, and unless `rare` an option of its command.

    type: `list` for one that may be repeated. place: whether the value is a location in storage, which workers must be
    able to reach. file: whether it is a single file; a local one is copied to `inputs/` at the destination when the run
    starts. of_model: whether it says how the model is loaded; it is then part of the model's reference in the spec
    (`Task.refer`) and no setting.
    """

    name: str
    help: str
    type: type = str
    default: Any = None
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    place: bool = False
    file: bool = False
    of_model: bool = False
    rare: bool = False

    @property
    def flag(self) -> str:
        """Return how users write it: `--missing-mask`, or `--set mask_tolerance=` for a rare one."""
        return f"--set {self.name}=" if self.rare else f"--{self.name.replace('_', '-')} "

    def of(self, spec: RunSpec) -> Any:
        """Return its value in a spec, or the default."""
        return spec.settings.get(self.name, self.default)

    def check(self, spec: RunSpec) -> None:
        """Raise UsageError for a value that is not one of `choices`."""
        value = self.of(spec)
        if self.choices and value is not None and value not in self.choices:
            raise UsageError(f"{self.flag}{value}: must be one of {', '.join(self.choices)}")


@dataclass(frozen=True)
class Inline:
    """Items that a command takes as an option instead of a source: `-p "a red circle"`.

    option, short: its names. file: the name of the file that they are written to, as `write` returns it: from then on
    that file is the source.
    """

    option: str
    short: str
    help: str
    file: str
    write: Callable[[Sequence[str]], bytes]


@dataclass(frozen=True)
class Candidate:
    """A packaged model that a run may choose, for pictures whose quality (the ledger's column) is in these bounds."""

    model: str
    lowest: int
    highest: int


@dataclass(frozen=True)
class Opened:
    """What rows of one job are read from: the source, and what `Task.open_inputs` returned."""

    source: Source
    inputs: Any = None


def no_notes(height: int, width: int, job: Job) -> tuple[str, ...]:
    """Note nothing."""
    return ()


def accept_any(spec: RunSpec, info: ModelInfo) -> None:
    """Check nothing."""


def no_settings(spec: RunSpec) -> dict[str, Any]:
    """Return no settings: nothing of the task's own decides pixels."""
    return {}


def no_reference(model: str, settings: Settings) -> str:
    """Return the reference as it is: no setting is part of it."""
    return model


def no_inputs(spec: RunSpec) -> None:
    """Return nothing: the task reads only its source."""


def check_no_inputs(inputs: Any, spec: RunSpec) -> None:
    """Check nothing: there are no inputs."""


def list_source(opened: Opened, spec: RunSpec, *, local_destination: bool) -> Iterator[pa.RecordBatch]:
    """Return the source's own listing: one work row an item."""
    return opened.source.list(local_destination=local_destination)


def as_planned(work: pa.Table) -> pa.Table:
    """Return the rows in the order of the plan."""
    return work


def nothing_to_keep(opened: Opened, spec: RunSpec, destination: Store) -> None:
    """Keep nothing beside the ledger."""


def nothing_to_add(opened: Opened, spec: RunSpec, destination: Store, ledger: Ledger) -> None:
    """Add nothing after a run."""


def no_explanation(reasons: set[str], spec: RunSpec) -> str:
    """Return "": the source itself explains why nothing of it can be processed."""
    return ""


def one_model(spec: RunSpec) -> Sequence[Candidate]:
    """Return nothing: `spec.model` names the one model of the run."""
    return ()


def the_only_one(picture: Header | SpooledPicture, job: Job) -> Job:
    """Return the job itself: it has one model."""
    return job


def scaled(height: int, width: int, job: Job) -> tuple[int, int]:
    """Return the size that the model's output has."""
    return height * job.info.scale, width * job.info.scale


def never(spec: RunSpec) -> None:
    """Skip no image for its size."""


def no_conditions(job: Job) -> dict[str, Any]:
    """Return no conditions: the model needs only its input."""
    return {}


def no_large_input(picture: SpooledPicture, row: Row, job: Job, folder: Path) -> tuple[ReadTile, Measures]:
    """Return the pixels of a picture on disk as they are."""
    return picture.read, {}


@dataclass(frozen=True)
class Task:
    """One kind of work, from its command to what its ledger rows measure.

    name: the word in specs, ledgers, model info and model cards ("super-resolution"). command: its command
    ("upscale"); two tasks may share one, and `chosen_by` names the options that choose this one. summary, description
    and examples are its help.

    default_model: from the settings to a model reference. candidates: the models among which `choose` chooses one for
    each picture, from its header to the job with that model; none where the spec names its model. refer: from a model
    reference and the settings that are `of_model` to the reference with these; raises UsageError for a model that takes
    none. models: the tasks in a model's info that it runs, by default its own. sources: the kinds of source it takes
    (`pipeline/sources/`); source_name and source_help say what that is. inline: how items are given without one.
    keeps_format: whether `--format same` makes sense; else `default_format` is written. digital_source_type: IPTC's
    term for its outputs (`imgtx.codecs.metadata.provenance`).

    check: raises UsageError for settings that contradict each other or the model. recipe: what of the settings
    decides pixels, as names and values that are hashed where they are set. before_copying: settings to record before a
    local source is copied to the destination, such as the folder that paths in it are relative to. open_inputs: opens
    what it reads beside the source, and check_inputs raises UsageError where that cannot be read. list: batches of
    LISTED rows, each an output with its own key. explain: why nothing listed can be processed, or "".

    keep: writes beside the ledger what the source says of its rows, before a run's first image. arrange: the order in
    which planned rows run, so that those that can share a call of the model are neighbours. finish: what a run adds
    when its images are done.

    fetch: (row, opened) -> row with what must be read of storage. load: (row, job) -> row with `tiles`, `shape`,
    `dtype`, and the rest of PIXELS. large_input: the same for a picture on disk: from a tile to its pixels, and
    measures. output_size: from an input's height and width to its output's; what the model makes larger is reduced.
    size_notes: from an input's height and width to notes of its output's size, of an image that went through a model.
    skip_larger_than: the longest side in pixels of an image that `load` does not skip. conditions: what `model.prepare`
    is given once per job and actor. A row's own conditions are in its column `conditions`. measures: names of numbers
    in the ledger and what they mean.
    """

    name: str
    command: str
    summary: str
    description: str
    examples: tuple[str, ...]
    default_model: Callable[[Settings], str]
    fetch: Callable[[Row, Opened], Row]
    load: Callable[[Row, Job], Row]
    options: tuple[Option, ...] = ()
    chosen_by: tuple[str, ...] = ()
    models: frozenset[str] = frozenset()
    sources: tuple[str, ...] = ("images",)
    source_name: str = "SOURCE"
    source_help: str = (
        "SOURCE is a folder, a file or a glob in quotes, DESTINATION a folder; either may be an s3:// URI or any other "
        "that fsspec opens. Images that are up to date are not read."
    )
    inline: Inline | None = None
    keeps_format: bool = True
    default_format: str = "same"
    candidates: Callable[[RunSpec], Sequence[Candidate]] = one_model
    choose: Callable[[Header | SpooledPicture, Job], Job] = the_only_one
    digital_source_type: str = "algorithmicallyEnhanced"
    check: Callable[[RunSpec, ModelInfo], None] = accept_any
    recipe: Callable[[RunSpec], dict[str, Any]] = no_settings
    refer: Callable[[str, Settings], str] = no_reference
    before_copying: Callable[[RunSpec], dict[str, Any]] = no_settings
    open_inputs: Callable[[RunSpec], Any] = no_inputs
    check_inputs: Callable[[Any, RunSpec], None] = check_no_inputs
    list: Callable[..., Iterator[pa.RecordBatch]] = list_source
    explain: Callable[[set[str], RunSpec], str] = no_explanation
    keep: Callable[[Opened, RunSpec, Store], None] = nothing_to_keep
    arrange: Callable[[pa.Table], pa.Table] = as_planned
    finish: Callable[[Opened, RunSpec, Store, Ledger], None] = nothing_to_add
    large_input: Callable[..., tuple[ReadTile, Measures]] = no_large_input
    output_size: Callable[[int, int, Job], tuple[int, int]] = scaled
    size_notes: Callable[[int, int, Job], tuple[str, ...]] = no_notes
    skip_larger_than: Callable[[RunSpec], int | None] = never
    conditions: Callable[[Job], dict[str, Any]] = no_conditions
    measures: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.models:
            object.__setattr__(self, "models", frozenset({self.name}))
