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

    The learning rate follows the share of the training that is done. `batch` counts all workers, so neither their
    number nor a change of it affects the learning rate or the crops. `make docs` reads the comments.
    """

    # Name of the model and of its weight file.
    name: str
    # Folder or URI of clean images to train on; the more kinds the better.
    train: str
    # Folder or URI of other clean images of the same kind, for the learning curve only.
    valid: str
    # Number of updates. Give `steps`, which repeats exactly on the same machine, or `minutes`.
    steps: int = 0
    # Minutes of computing, which end in time; neither interruptions nor waiting count.
    minutes: float = 0.0
    # Enlargement: 2, 3 or 4; 1 with `restoration` and `holes`.
    scale: int = 2
    # What the model card says of the weights' licence.
    licence: str = "unknown"
    # What the model card says of the images.
    data_note: str = ""
    # Start from these weights: a packaged name, a file, `s3://.../NAME@VERSION`. Every tensor that fits is used;
    # another scale keeps all but the last layer. Empty: start from nothing.
    init_from: str = ""
    # Crops per step, of all workers together.
    batch: int = 16
    # Side of a crop in pixels of the model's input; a multiple of the model's attention window.
    crop: int = 48
    # `adamw`, or `muon`, which makes the updates of linear layers orthogonal at the same cost.
    optimizer: str = "adamw"
    # Highest learning rate. It rises for 2 % of the training and falls as a cosine.
    peak_lr: float = 1e-3
    # Share of the training at `peak_lr` between rising and falling, 0 to 0.9; may be changed on the way.
    hold: float = 0.0
    # Decay of the weights.
    weight_decay: float = 0.0
    # Longest gradient; longer ones are scaled down.
    clip: float = 1.0
    # Decay of the weights' exponential average, which is what is validated and written.
    average: float = 0.999
    # Seed of the crops and of the first weights.
    seed: int = 0
    # `bfloat16`, or `float32` for CPUs without AMX or AVX512-BF16.
    precision: str = "bfloat16"
    # `l1`, `mse`, or `psnr`, which counts weak damage as much as strong; with `psnr` give `clip = 100`.
    loss: str = "l1"
    # What makes the damaged side: `bicubic`, `archive`, `restoration` or `holes`.
    degradation: str = "bicubic"
    # Where crops are cut: `livelier` of two places, in proportion to gradient `energy`, or `uniform`.
    crop_choice: str = "livelier"
    # Share of procedural crops (dead leaves), 0 to 1: for few images.
    procedural_share: float = 0.0
    # Half of the crops are first reduced by up to this factor, so that images of one collection teach for others.
    shrink: float = 1.0
    # Half of the crops are first blurred by up to this many pixels, for the same reason.
    soften: float = 0.0
    # Crops per visit to an image, where images are streamed (`--workers`).
    crops_per_image: int = 16
    # Number of images that the learning curve is measured on.
    valid_images: int = 12
    # Minutes between two validations.
    validate_minutes: float = 8.0
    # Minutes between two checkpoints: how much a kill may cost.
    checkpoint_minutes: float = 2.0
    # Shape of the network: fields of `imgtx.models.info.ModelConfig`.
    model: dict[str, Any] = field(default_factory=dict)
    # Strength of the damage: fields of the degradation's own table.
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
