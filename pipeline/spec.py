"""What a run is asked to do (RunSpec), what decides its pixels (Recipe), and both with the model's info (Job).

Plain data. `pipeline/job.py` checks it, `pipeline/tasks/` says what a task's own settings mean.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from imgtx.models.info import ModelInfo

# Raised whenever imgtx itself begins to compute other pixels from the same recipe.
PIXEL_VERSION = 1

PRECISIONS = ("float32", "bfloat16", "float16")
AUTO = "auto"  # the precision that the probe of the model found fastest and exact enough


@dataclass(frozen=True)
class RunSpec:
    """One invocation, as the user gave it. URIs are local paths, `s3://`, or anything fsspec opens.

    `workers` model actors share `gpus` GPUs. `max_failed` is a share ("1%") or a count ("20").
    """

    # Where the images are: a folder, `s3://bucket/prefix`, or another URI.
    source: str
    # Where outputs and ledger go: likewise.
    destination: str
    # Set by the command.
    task: str = "super-resolution"
    model: str = "sr-x2"
    # The options of the task (`Task.options`) that were given.
    settings: Mapping[str, Any] = field(default_factory=dict)
    format: str = "same"
    quality: int = 92
    precision: str = "float32"
    limit: int | None = None
    workers: int | None = None
    min_workers: int | None = None
    gpus: float | None = None
    max_failed: str = "1%"
    # Larger inputs are refused from their header.
    max_megapixels: float = 1000.0
    # Larger outputs go through local disk, tile by tile, instead of memory.
    stream_megapixels: float = 50.0
    endpoint_url: str | None = None
    address: str | None = None
    compile: bool = False
    self_ensemble: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The spec as one flat table, the task's settings among its own fields: what `spec.json` holds."""
        values = asdict(self)
        return values | values.pop("settings")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """The inverse of `to_dict`: what is not a field of the spec is a setting of its task."""
        own = {f.name for f in fields(cls)} - {"settings"}
        settings = {name: value for name, value in values.items() if name not in own and value is not None}
        return cls(**{name: value for name, value in values.items() if name in own}, settings=settings)

    def failures_allowed(self, listed: int) -> int:
        """Return how many failed images this run tolerates, of `listed`."""
        if self.max_failed.endswith("%"):
            return int(listed * float(self.max_failed[:-1]) / 100)
        return int(self.max_failed)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an output's pixels; its digest is in every ledger row.

    `precision` is what is computed in, never `auto`. `compiled` is in it because a compiled program rounds
    differently. Tile size and halo are not: they move pixels by less than 1/255. Whether a picture is cut at all
    (`untiled` in the model's info) is, because for a model that looks at the whole picture that changes everything.
    `settings` is what the task adds (`Task.recipe`).
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
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """16 hex digits of SHA-256. A field that may be left out counts only where it is set, so that outputs made
        before the field existed stay current."""
        values = asdict(self)
        for name in ("untiled", "compiled", "self_ensemble"):
            if not values[name]:
                del values[name]
        values |= {name: value for name, value in values.pop("settings").items() if value}
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Job:
    """A checked spec with what its model says of itself; this is what travels to the workers."""

    spec: RunSpec
    info: ModelInfo
    recipe: Recipe
