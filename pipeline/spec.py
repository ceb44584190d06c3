"""Define what a run must do (RunSpec), what decides its pixels (Recipe), and both with the model's info (Job).

Plain data: `pipeline/job.py` checks it, and `pipeline/tasks/` defines what a task's own settings mean.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from imgtx.models.info import ModelInfo

# Increased whenever imgtx itself begins to compute other pixels from the same recipe, or to refuse other files: what an
# older imgtx made then runs again, and a plan counts it as such.
PIXEL_VERSION = 2

# What becomes of a truncated picture: nothing, or what the decoder can recover.
REFUSE, ACCEPT = "refuse", "accept"
# The precision that the probe of the model found fastest and exact enough.
AUTO = "auto"


@dataclass(frozen=True)
class RunSpec:
    """The settings of one run, as the user gave them.

    URIs are local paths, `s3://`, or anything that fsspec opens. `workers` model actors share `gpus` GPUs. `max_failed`
    is a share ("1%") or a count ("20"). Globs are those of `pipeline.sources.globs`.
    """

    # Where the images are: a folder, `s3://bucket/prefix`, or another URI.
    source: str
    # Where outputs and ledger are written: likewise.
    destination: str
    # Set by the command. Callers that name no task, such as nightly runs, upscale.
    task: str = "super-resolution"
    # A packaged name, STORE/NAME@latest, or a file. Of `imgtx upscale` also auto: a packaged one for each picture.
    model: str = "auto"
    # The options of the task (`Task.options`) that were given.
    settings: Mapping[str, Any] = field(default_factory=dict)
    # Take only keys that match one of these globs.
    include: list[str] | None = None
    # Leave out keys that match one of these globs.
    exclude: list[str] | None = None
    # Take only the keys that this file lists.
    keys: str | None = None
    # What SOURCE names inside `source` where it is a file or a glob. Set by the command.
    source_glob: str | None = None
    format: str = "same"
    quality: int = 92
    precision: str = "float32"
    limit: int | None = None
    workers: int | None = None
    min_workers: int | None = None
    gpus: float | None = None
    max_failed: str = "1%"
    # A share or a count, likewise; without it any number of files may be skipped.
    max_skipped: str | None = None
    # Larger inputs are refused from their header.
    max_megapixels: float = 1000.0
    # Larger outputs go through local disk, tile by tile, instead of memory.
    stream_megapixels: float = 50.0
    endpoint_url: str | None = None
    address: str | None = None
    # Who processes the images: `local` (processes of this machine), `ray`, or `auto`: `local` for small work on CPUs.
    engine: str = "auto"
    compile: bool = False
    self_ensemble: bool = False
    # A truncated picture: `refuse` it, or `accept` what the decoder recovers. It is no part of the recipe.
    on_damage: str = REFUSE
    # Outputs say in XMP what made them: software, task and model.
    provenance: bool = True
    # Local outputs have the modification time of their local sources. It is no part of the recipe.
    times: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as one flat table, as in `spec.json`: the task's settings are among its own fields."""
        values = asdict(self)
        return values | values.pop("settings")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """Return the spec of a table made by `to_dict`: what is not a field of the spec is a setting of its task."""
        own = {f.name for f in fields(cls)} - {"settings"}
        settings = {name: value for name, value in values.items() if name not in own and value is not None}
        return cls(**{name: value for name, value in values.items() if name in own}, settings=settings)

    def failures_allowed(self, listed: int) -> int:
        """Return how many failed images this run tolerates, of `listed`."""
        return _allowed(self.max_failed, listed)

    def skips_allowed(self, listed: int) -> int:
        """Return how many skipped files this run tolerates, of `listed`."""
        return listed if self.max_skipped is None else _allowed(self.max_skipped, listed)


def _allowed(limit: str, listed: int) -> int:
    """Return how many of `listed` a share ("1%") or a count ("20") is."""
    return int(listed * float(limit[:-1]) / 100) if limit.endswith("%") else int(limit)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an output's pixels; its digest is in every ledger row.

    `precision` is the one that is computed in, never `auto`. `compiled` is included because a compiled program rounds
    differently. Tile size and halo are not included: they change pixels by less than 1/255. Whether pictures are cut
    into tiles at all (`untiled` in the model's info) is, because a model that looks at the whole picture gives
    different pixels. `unmarked` means that outputs do not say what made them. `settings` is what the task
    adds (`Task.recipe`).
    """

    task: str
    model_digest: str
    scale: int
    format: str
    quality: int
    precision: str
    pixel_version: int = PIXEL_VERSION
    untiled: bool = False
    compiled: bool = False
    self_ensemble: bool = False
    unmarked: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Return 16 hex digits of SHA-256.

        An optional field counts only where it is set, so that outputs made before the field existed stay current.
        """
        values = asdict(self)
        for name in ("untiled", "compiled", "self_ensemble", "unmarked"):
            if not values[name]:
                del values[name]
        values |= {name: value for name, value in values.pop("settings").items() if value}
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def older_digests(self) -> tuple[str, ...]:
        """Return the digests that older versions of imgtx gave to this recipe."""
        return tuple(replace(self, pixel_version=version).digest for version in range(1, self.pixel_version))


@dataclass(frozen=True)
class Job:
    """A checked spec with its model's info and its recipe, as sent to the workers.

    choices: of a run that chooses a model for each picture, what it chooses among; `info` is then that of the first
    one, and `recipe` that of pictures that fail before the choice.
    """

    spec: RunSpec
    info: ModelInfo
    recipe: Recipe
    choices: tuple["Choice", ...] = ()

    def of(self, row: Mapping[str, Any]) -> "Job":
        """Return the job of a row whose `model` is chosen, or this one."""
        return next((c.job for c in self.choices if c.job.spec.model == row["model"]), self)


@dataclass(frozen=True)
class Choice:
    """The job of pictures whose quality (the ledger's column) is `lowest` to `highest`, where it is for their size."""

    job: Job
    lowest: int
    highest: int
