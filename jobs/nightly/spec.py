"""The spec of a nightly run, read from a TOML file and checked."""

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from imgtx.errors import UsageError
from imgtx.settings import check_fields, merge, read_toml
from imgtx.training.spec import TrainSpec
from jobs.nightly.gate import Gate
from jobs.nightly.schedule import Schedule, check_schedule
from pipeline.models.references import split_name
from pipeline.spec import RunSpec

# Fields that the nightly run sets itself, so [train] and [upscale] cannot.
TRAIN_DERIVED = ("name", "train", "valid", "scale", "init_from", "model", "licence", "data_note")
UPSCALE_DERIVED = ("task", "model", "scale", "endpoint_url", "source_glob")


@dataclass(frozen=True)
class NightlySpec:
    """What happens every night. URIs are folders, `s3://`, or any other URI that fsspec opens.

    `make docs` reads the comments.
    """

    # Folder or URI that is searched for images that no nightly run has used.
    archive: str
    # STORE/NAME: training continues from its latest version.
    model: str
    # Folder or URI for what each nightly run found and used.
    state: str
    # Folder or URI of clean photos for the learning curve and the halo; their sides are longer than 12 times the
    # model's multiple.
    valid: str
    # Folders or URIs that the gate measures on; by default `valid`.
    datasets: list[str] = field(default_factory=list)
    # New images per run; the rest stay new for the next.
    max_new_images: int = 500
    # Older images that are trained on beside them.
    replay_images: int = 500
    # Pixels a side that are cut out of each image, which bounds memory.
    largest_side: int = 1024
    # What the model card says of the weights' licence.
    licence: str = "unknown"
    # What the model card says of the images.
    data_note: str = "the archive's own images"
    # An S3 server other than AWS.
    endpoint_url: str | None = None
    # When new weights are promoted: see below.
    gate: dict[str, Any] = field(default_factory=dict)
    # Fields of a training spec; shape, scale and damage are those of the model.
    train: dict[str, Any] = field(default_factory=dict)
    # Fields of a run spec, and `destination`; without this table no outputs are made.
    upscale: dict[str, Any] = field(default_factory=dict)
    # When runs start and on which machines: see below.
    schedule: dict[str, Any] = field(default_factory=dict)

    @property
    def when(self) -> Schedule:
        """The checked schedule, by default named after the model."""
        schedule = Schedule(**self.schedule)
        if not schedule.name:
            model = re.sub(r"[^a-z0-9]+", "-", self.store_and_name[1].lower()).strip("-")
            schedule = replace(schedule, name=f"imgtx-{model}")
        check_schedule(schedule)
        return schedule

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def store_and_name(self) -> tuple[str, str]:
        """The model store's URI, and the model's name in it."""
        return split_name(self.model)

    @property
    def rule(self) -> Gate:
        return Gate(**self.gate)


def load_nightly_spec(path: Path, overrides: dict[str, Any] | None = None) -> NightlySpec:
    """Read and check a spec; UsageError names the field, its value and what is allowed."""
    values = merge(read_toml(path), overrides or {})
    check_fields(values, NightlySpec, str(path))
    check_fields(values.get("gate", {}), Gate, f"{path} [gate]")
    check_fields(values.get("train", {}), TrainSpec, f"{path} [train]", without=TRAIN_DERIVED)
    check_fields(values.get("upscale", {}), RunSpec, f"{path} [upscale]", without=UPSCALE_DERIVED)
    check_fields(values.get("schedule", {}), Schedule, f"{path} [schedule]")
    missing = [name for name in ("archive", "model", "state", "valid") if not values.get(name)]
    if missing:
        raise UsageError(
            f"{path} lacks {', '.join(missing)}: a nightly spec needs archive, model, state and valid"
        )
    spec = NightlySpec(**values)
    for name, least in (("max_new_images", 1), ("replay_images", 0), ("largest_side", 1)):
        if getattr(spec, name) < least:
            raise UsageError(f"{path}: {name} = {getattr(spec, name)}: expected {least} or more")
    if spec.upscale and not spec.upscale.get("destination"):
        raise UsageError(
            f"{path} [upscale] lacks destination: set it to where the outputs go, or leave the table out"
        )
    if "@" in spec.model.rpartition("/")[2]:
        raise UsageError(
            f"{path}: model = {spec.model!r} names a version: write STORE/NAME, training continues from its latest "
            "version"
        )
    split_name(spec.model)
    return spec
