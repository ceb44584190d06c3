"""The training spec: a frozen, checked reading of a TOML file."""

from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from imgtx.degradations import DEGRADATIONS, Degradation
from imgtx.degradations.sharpness import SharpnessAugmentation
from imgtx.errors import UsageError
from imgtx.models.config import ModelConfig
from imgtx.settings import check_fields, merge, read_toml
from imgtx.training.data.crops import CROP_CHOICES, CropSettings

# Fields of the network that follow from the spec and the data, so [model] cannot set them.
DERIVED = ("scale", "in_channels", "out_channels", "holes")
POSITIVE = (
    "batch", "crop", "crops_per_image", "peak_lr", "clip", "valid_images", "valid_prompts", "validate_minutes",
    "checkpoint_minutes",
)  # fmt: skip
CHOICES = {
    "precision": ("float32", "bfloat16"),
    "loss": ("l1", "mse", "psnr"),
    "optimizer": ("adamw", "muon"),
    "degradation": tuple(DEGRADATIONS),
    "crop_choice": CROP_CHOICES,
}
MAX_CONSTANT_LR_SHARE = 0.9
# What may change between an interruption and the resumption: how long, when the rate falls, how often, the folders.
FREE = (
    "minutes", "steps", "constant_lr_share", "train", "valid", "init_from", "valid_images", "validate_minutes",
    "checkpoint_minutes", "licence", "data_note", "pictures", "valid_prompts",
)  # fmt: skip
# What weights and checkpoints made before 0.1.0 call fields and values of today.
OLD_NAMES = {"hold": "constant_lr_share", "shrink": "downscale", "soften": "blur"}
OLD_CROP_CHOICE = {"livelier": "higher_gradient"}


@dataclass(frozen=True)
class TrainSpec:
    """Everything that decides the weights. Paths are relative to the working directory.

    The learning rate follows the share of the training that is done. `batch` counts all workers, so neither their
    number nor a change of it affects the learning rate or the crops. `make docs` reads the comments.
    """

    # Name of the model and of its weight file.
    name: str
    # Folder or URI of clean images to train on; the more kinds the better.
    train: str
    # Folder or URI of other clean images of the same kind, for the learning curve only.
    valid: str
    # Number of updates. Give `steps`, which repeats exactly on the same machine with the same number of threads, or
    # `minutes`.
    steps: int = 0
    # Minutes of computing, which end in time: those that pass on an idle machine. Neither interruptions nor waiting
    # count.
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
    constant_lr_share: float = 0.0
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
    # Where crops are cut: of two places the one with `higher_gradient`, in proportion to gradient `energy`, or
    # `uniform`.
    crop_choice: str = "higher_gradient"
    # Share of procedural crops (dead leaves), 0 to 1: for few images.
    procedural_share: float = 0.0
    # Half of the crops are first reduced by up to this factor, so that images of one collection teach for others.
    downscale: float = 1.0
    # Half of the crops are first blurred by up to this many pixels, for the same reason.
    blur: float = 0.0
    # Crops per visit to an image, where images are streamed (`--workers`).
    crops_per_image: int = 16
    # Number of images that the learning curve is measured on.
    valid_images: int = 12
    # Minutes between two validations.
    validate_minutes: float = 8.0
    # Minutes between two checkpoints: how much a kill may cost.
    checkpoint_minutes: float = 2.0
    # Shape of the network: fields of `imgtx.models.config.ModelConfig`.
    model: dict[str, Any] = field(default_factory=dict)
    # Strength of the damage: fields of the degradation's own table.
    damage: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Degradation:
        return DEGRADATIONS[self.degradation]

    @property
    def config(self) -> ModelConfig:
        masks = self.kind.masks
        return ModelConfig(scale=self.scale, in_channels=4 if masks else 3, holes=masks, **self.model)

    @property
    def crop_settings(self) -> CropSettings:
        return CropSettings(
            self.crop,
            self.crop_choice,
            self.kind,
            self.kind.damage(**self.damage) if self.kind.damage else None,
            self.procedural_share,
            SharpnessAugmentation(self.downscale, self.blur),
        )

    @property
    def task(self) -> str:
        return self.kind.task


def load_train_spec(
    path: Path, overrides: dict[str, Any] | None = None, *, folders: bool = True
) -> TrainSpec:
    """Read and check a spec; the UsageError names the field, what was given and what is allowed.

    `folders`: whether its images must be in folders of this machine.
    """
    return make_train_spec(merge(read_toml(path), overrides or {}), path, folders=folders)


def make_train_spec(values: dict[str, Any], path: Path, *, folders: bool = True) -> TrainSpec:
    """Check `values` as `load_train_spec` does; `path` is the file that errors name."""
    check_fields(values, TrainSpec, str(path))
    check_fields(values.get("model", {}), ModelConfig, f"{path} [model]", without=DERIVED)
    kind = DEGRADATIONS.get(values.get("degradation", ""))
    if kind is not None and kind.damage is not None:
        check_fields(values.get("damage", {}), kind.damage, f"{path} [damage]")
    missing = [name for name in ("name", "train", "valid") if name not in values]
    if missing:
        raise UsageError(f"{path} lacks {', '.join(missing)}: a training spec needs name, train, valid")
    spec = TrainSpec(**values)
    _check_values(spec, path)
    if folders:
        _check_folders(spec, path)
    return spec


def _check_values(spec: TrainSpec, path: Path) -> None:
    check_course(spec, path)
    if spec.scale not in spec.kind.scales:
        raise UsageError(
            f"{path}: scale = {spec.scale}: with degradation = {spec.degradation!r} it must be "
            f"{' or '.join(map(str, spec.kind.scales))}"
        )
    if not 0 <= spec.procedural_share < 1:
        raise UsageError(
            f"{path}: procedural_share = {spec.procedural_share}: must be 0 or more, and less than 1"
        )
    _check_damage(spec, path)
    try:
        SharpnessAugmentation(spec.downscale, spec.blur)
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


def check_course(spec: Any, path: Path) -> None:
    """Check the fields that specs of every kind of training have: choices, numbers above 0, how long, how fast."""
    known = {f.name for f in fields(spec)}
    for name, choices in CHOICES.items():
        if name in known and (value := getattr(spec, name)) not in choices:
            raise UsageError(f"{path}: {name} = {value!r}: must be one of {', '.join(choices)}")
    if not spec.name or Path(spec.name).name != spec.name:
        raise UsageError(f"{path}: name = {spec.name!r}: must be a file name, which the weights get")
    for name in [name for name in POSITIVE if name in known]:
        # Not `<= 0`, so that nan fails too.
        if not getattr(spec, name) > 0:
            raise UsageError(f"{path}: {name} = {getattr(spec, name)}: must be more than 0")
    if (spec.steps > 0) == (spec.minutes > 0):
        raise UsageError(
            f"{path}: steps = {spec.steps} and minutes = {spec.minutes:g}: one of them must be more than 0: "
            f"steps for a training that repeats exactly, minutes for one that ends in time"
        )
    for name in ("steps", "minutes", "seed", "weight_decay", "average"):
        if not getattr(spec, name) >= 0:
            raise UsageError(f"{path}: {name} = {getattr(spec, name)}: must be 0 or more")
    if spec.average >= 1:
        raise UsageError(f"{path}: average = {spec.average}: must be less than 1; at 1 no step would count")
    if not 0 <= spec.constant_lr_share <= MAX_CONSTANT_LR_SHARE:
        raise UsageError(
            f"{path}: constant_lr_share = {spec.constant_lr_share}: must be 0 to {MAX_CONSTANT_LR_SHARE}, the share "
            f"of training at peak_lr, after the rate rises for 2 % and before it falls"
        )


def _check_damage(spec: TrainSpec, path: Path) -> None:
    if spec.kind.damage is not None:
        try:
            spec.kind.damage(**spec.damage)
        except UsageError as error:
            raise UsageError(f"{path} [damage]: {error}") from error
    elif spec.damage:
        having = [repr(kind.name) for kind in DEGRADATIONS.values() if kind.damage is not None]
        raise UsageError(
            f"{path}: [damage] needs degradation = {' or '.join(having)}, and it is {spec.degradation!r}: "
            f"remove the table, or set another degradation"
        )


def _check_folders(spec: TrainSpec, path: Path) -> None:
    for name in ("train", "valid"):
        if not Path(getattr(spec, name)).is_dir():
            raise UsageError(
                f"{path}: {name} = {getattr(spec, name)!r} is not a folder: give one that contains images"
                f"{', or --workers and --storage for images in storage' if '://' in getattr(spec, name) else ''}"
            )


def check_same(spec: Any, began: dict[str, Any], where: str) -> None:
    """Raise UsageError if `spec` differs from the one that the training in `where` began with, but for FREE."""
    now = asdict(spec)
    # A checkpoint older than a field was trained as its default says.
    began = defaults(type(spec)) | with_current_names(began)
    changed = [name for name in now if name not in FREE and began.get(name) != now[name]]
    if changed:
        differences = ", ".join(f"{name} = {began.get(name)!r}, now {now[name]!r}" for name in changed)
        raise UsageError(
            f"the training in {where} began with {differences}; only {', '.join(FREE)} may change on the way: "
            f"train in another folder, or undo the change"
        )


def with_current_names(recorded: dict[str, Any]) -> dict[str, Any]:
    """Return a spec that a checkpoint or a weight file recorded, with the current names."""
    values = {OLD_NAMES.get(name, name): value for name, value in recorded.items()}
    if (choice := values.get("crop_choice")) in OLD_CROP_CHOICE:
        values["crop_choice"] = OLD_CROP_CHOICE[choice]
    return values


def defaults(spec: Any = TrainSpec) -> dict[str, Any]:
    """Return the default of every field of a spec that has one."""
    plain = {f.name: f.default for f in fields(spec) if f.default is not MISSING}
    made = {f.name: f.default_factory() for f in fields(spec) if f.default_factory is not MISSING}
    return plain | made
