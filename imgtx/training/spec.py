"""The training spec: a frozen, validated reading of a TOML file."""

from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from imgtx.degradations.sharpness import Variety
from imgtx.errors import UsageError
from imgtx.models.info import ModelConfig
from imgtx.settings import check_fields, merge, read_toml
from imgtx.training.crops import CROP_CHOICES, DAMAGES, DEGRADATIONS, Cutting

# Fields of the network that follow from the spec and the data, so that [model] cannot set them.
DERIVED = ("scale", "in_channels", "out_channels", "holes")
TASKS = {"restoration": "restoration", "holes": "inpainting"}  # of degradations that leave the size alone
POSITIVE = (
    "batch", "crop", "crops_per_image", "peak_lr", "clip", "valid_images", "validate_minutes", "checkpoint_minutes",
)  # fmt: skip
WORDS = {
    "precision": ("float32", "bfloat16"),
    "loss": ("l1", "mse", "psnr"),
    "optimizer": ("adamw", "muon"),
    "degradation": DEGRADATIONS,
    "crop_choice": CROP_CHOICES,
}
MOST_HELD = 0.9  # of `hold`
# What may change between an interruption and the resumption: how long, when the rate falls, how often, where the
# folders lie.
FREE = (
    "minutes", "steps", "hold", "train", "valid", "init_from", "valid_images", "validate_minutes",
    "checkpoint_minutes", "licence", "data_note",
)  # fmt: skip


@dataclass(frozen=True)
class TrainSpec:
    """Everything that decides the weights. Paths are read relative to the working directory.

    Training lasts `steps` updates, and then repeats exactly on the same machine; or `minutes` of time spent in the
    loop, the CPU's own on a CPU (neither interruptions nor waiting count). The schedule follows the share that is done.
    `batch` is what all workers take together, so that neither their number nor a change of it touches the learning
    rate or the crops. `crops_per_image` is of one visit to an image, where they are streamed (`jobs/train/stream.py`).
    """

    name: str
    train: str
    valid: str
    steps: int = 0
    minutes: float = 0.0
    scale: int = 2
    licence: str = "unknown"
    data_note: str = ""
    init_from: str = ""
    batch: int = 16
    crop: int = 48
    optimizer: str = "adamw"
    peak_lr: float = 1e-3
    hold: float = 0.0
    weight_decay: float = 0.0
    clip: float = 1.0
    average: float = 0.999
    seed: int = 0
    precision: str = "bfloat16"
    loss: str = "l1"
    degradation: str = "bicubic"
    crop_choice: str = "livelier"
    procedural_share: float = 0.0
    shrink: float = 1.0
    soften: float = 0.0
    crops_per_image: int = 16
    valid_images: int = 12
    validate_minutes: float = 8.0
    checkpoint_minutes: float = 2.0
    model: dict[str, Any] = field(default_factory=dict)
    damage: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> ModelConfig:
        holes = self.degradation == "holes"
        return ModelConfig(scale=self.scale, in_channels=4 if holes else 3, holes=holes, **self.model)

    @property
    def cutting(self) -> Cutting:
        damage = DAMAGES[self.degradation](**self.damage) if self.degradation in DAMAGES else None
        return Cutting(
            self.crop, self.crop_choice, damage, self.procedural_share, Variety(self.shrink, self.soften)
        )

    @property
    def task(self) -> str:
        return TASKS.get(self.degradation, "super-resolution")


def load_train_spec(
    path: Path, overrides: dict[str, Any] | None = None, *, folders: bool = True
) -> TrainSpec:
    """Read and check a spec; UsageError names the field, what was given and what is legal.

    `folders`: whether its images are to lie in folders of this machine.
    """
    return make_train_spec(merge(read_toml(path), overrides or {}), path, folders=folders)


def make_train_spec(values: dict[str, Any], path: Path, *, folders: bool = True) -> TrainSpec:
    """`load_train_spec` for values that stand in another file, `path`."""
    check_fields(values, TrainSpec, str(path))
    check_fields(values.get("model", {}), ModelConfig, f"{path} [model]", without=DERIVED)
    if (damage := DAMAGES.get(values.get("degradation", ""))) is not None:
        check_fields(values.get("damage", {}), damage, f"{path} [damage]")
    missing = [name for name in ("name", "train", "valid") if name not in values]
    if missing:
        raise UsageError(f"{path} lacks {', '.join(missing)}: a training spec needs name, train, valid")
    spec = TrainSpec(**values)
    _check_values(spec, path)
    if folders:
        _check_folders(spec, path)
    return spec


def _check_values(spec: TrainSpec, path: Path) -> None:
    for name, legal in WORDS.items():
        if (value := getattr(spec, name)) not in legal:
            raise UsageError(f"{path}: {name} = {value!r}; legal are {' and '.join(map(repr, legal))}")
    scales = (1,) if spec.degradation in TASKS else (2, 3, 4)
    if spec.scale not in scales:
        raise UsageError(
            f"{path}: scale = {spec.scale}; legal with degradation = {spec.degradation!r} is "
            f"{'1' if scales == (1,) else '2, 3 or 4'}"
        )
    if not spec.name or Path(spec.name).name != spec.name:
        raise UsageError(f"{path}: name = {spec.name!r}; legal is a file name, for the weights bear it")
    for name in POSITIVE:
        if not getattr(spec, name) > 0:  # so that nan fails too
            raise UsageError(f"{path}: {name} = {getattr(spec, name)}; legal is more than 0")
    if (spec.steps > 0) == (spec.minutes > 0):
        raise UsageError(
            f"{path}: steps = {spec.steps} and minutes = {spec.minutes:g}; legal is one of them more than 0: "
            f"steps for a training that repeats, minutes for one that ends in time"
        )
    for name in ("steps", "minutes", "seed", "weight_decay", "average"):
        if not getattr(spec, name) >= 0:
            raise UsageError(f"{path}: {name} = {getattr(spec, name)}; legal is 0 or more")
    if spec.average >= 1:
        raise UsageError(f"{path}: average = {spec.average}; legal is less than 1: at 1 no step would count")
    if not 0 <= spec.hold <= MOST_HELD:
        raise UsageError(
            f"{path}: hold = {spec.hold}; legal is 0 to {MOST_HELD}, the share of training at peak_lr: "
            f"2 % before it the rate rises, after it it falls"
        )
    if not 0 <= spec.procedural_share < 1:
        raise UsageError(f"{path}: procedural_share = {spec.procedural_share}; legal is 0 to less than 1")
    _check_damage(spec, path)
    try:
        Variety(spec.shrink, spec.soften)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    try:
        multiple = spec.config.multiple
    except ValueError as error:
        raise UsageError(f"{path} [model]: {error}") from error
    if spec.crop % multiple:
        raise UsageError(
            f"{path}: crop = {spec.crop} is not a multiple of the model's {multiple} px (patch x window): "
            f"use {max(1, spec.crop // multiple) * multiple}"
        )


def _check_damage(spec: TrainSpec, path: Path) -> None:
    if spec.degradation in DAMAGES:
        try:
            DAMAGES[spec.degradation](**spec.damage)
        except UsageError as error:
            raise UsageError(f"{path} [damage]: {error}") from error
    elif spec.damage:
        raise UsageError(
            f"{path}: [damage] is of degradation = {' or '.join(map(repr, DAMAGES))}, which is "
            f"{spec.degradation!r}: drop one"
        )


def _check_folders(spec: TrainSpec, path: Path) -> None:
    for name in ("train", "valid"):
        if not Path(getattr(spec, name)).is_dir():
            raise UsageError(
                f"{path}: {name} = {getattr(spec, name)!r} is not a folder: give one that holds images"
            )


def check_same(spec: TrainSpec, began: dict[str, Any], where: str) -> None:
    """UsageError where `spec` would finish another training than the one that `began` in `where`."""
    now = asdict(spec)
    began = defaults() | began  # a checkpoint older than a field was trained as its default says
    changed = [name for name in now if name not in FREE and began.get(name) != now[name]]
    if changed:
        told = ", ".join(f"{name} = {began.get(name)!r}, now {now[name]!r}" for name in changed)
        raise UsageError(
            f"the training in {where} began with {told}; only {', '.join(FREE)} may change on the way: "
            f"train elsewhere, or take the change back"
        )


def defaults() -> dict[str, Any]:
    """What a spec says where it says nothing."""
    plain = {f.name: f.default for f in fields(TrainSpec) if f.default is not MISSING}
    made = {f.name: f.default_factory() for f in fields(TrainSpec) if f.default_factory is not MISSING}
    return plain | made
