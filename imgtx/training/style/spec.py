"""The spec of a style transfer training: a frozen, checked reading of a TOML file with `objective = "style"`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgtx.errors import UsageError
from imgtx.models.style_config import StyleConfig
from imgtx.settings import check_fields
from imgtx.training.spec import check_course
from imgtx.training.style.weights import StyleWeights, TeacherWeights

OBJECTIVE = "style"
# The deepest layer of a crop of this side has a position for every quantile that is compared.
CROP_MULTIPLE = 128
# What learns from a teacher: see `imgtx.training.style.imitating`.
PAINTING, STYLES, BOTH = "painting", "styles", "both"
# Of the contents that the teacher paints and of the styles that it looks at, in pixels, and of a crop of them.
TAUGHT_SIDE, LARGEST_CROP = 256, 224
# Of what the teacher reduces a style to.
NUMBERS = 100


@dataclass(frozen=True)
class StyleSpec:
    """Everything that decides the weights beside the pictures. `make docs` reads the comments."""

    # `style`, which tells this spec from those of other trainings.
    objective: str
    # Name of the model and of its weight file.
    name: str
    # Folder of style pictures, or one picture, to train that style alone.
    styles: str
    # Folder of photos that are given the styles. Empty: procedural pictures (dead leaves).
    train: str = ""
    # Folder of other photos for the learning curve and its contact sheet. Empty: those of `train`.
    valid: str = ""
    # Folder of other style pictures for them; leave out whole artists, who repeat themselves. Empty: `styles`.
    valid_styles: str = ""
    # Number of updates. Give `steps`, which repeats exactly on the same machine with the same number of threads, or
    # `minutes`.
    steps: int = 0
    # Minutes of computing, which end in time: those that pass on an idle machine. Neither interruptions nor waiting
    # count.
    minutes: float = 0.0
    # What the model card says of the weights' licence.
    licence: str = "unknown"
    # What the model card says of the pictures.
    data_note: str = ""
    # Start from these weights: a packaged name, a file, `s3://.../NAME@VERSION`. Every tensor that fits is used.
    # Empty: start from nothing.
    init_from: str = ""
    # Learn from pictures that Magenta paints, in trainings after one another: `painting`, from its own numbers
    # of each style; `styles`, how the style encoder finds these numbers; `both`, as the network is used. Empty: from
    # the style itself.
    teacher: str = ""
    # Pictures of the teacher, painted when a step first needs one and kept in the training's folder, 0.6 MB each.
    teacher_pictures: int = 2560
    # Crops per step; with a teacher each has its own style.
    batch: int = 4
    # Crops that are given the same style and judged together; a divisor of `batch`.
    per_style: int = 2
    # Side of a crop in pixels, a multiple of 128 and of the model's attention window; with a teacher a multiple of the
    # window, 224 at most.
    crop: int = 128
    # Side in pixels at which a style picture is looked at, a multiple of 128.
    style_side: int = 256
    # Pieces of each style picture, in three sizes, mirrored or not; their statistics are computed once and kept.
    pieces: int = 6
    # Share of the steps that compare with the style, and with the content, on grey images with equalised levels: there
    # only strokes count, not colours. 0 to 1.
    grey: float = 0.5
    # `adamw`, or `muon`, which makes the updates of linear layers orthogonal.
    optimizer: str = "muon"
    # Highest learning rate. It rises for 2 % of the training and falls as a cosine.
    peak_lr: float = 1e-3
    # Share of the training at `peak_lr` between rising and falling, 0 to 0.9; may be changed on the way.
    constant_lr_share: float = 0.0
    # Decay of the weights.
    weight_decay: float = 0.0
    # Longest gradient; longer ones are scaled down.
    clip: float = 1.0
    # Decay of the weights' exponential average, which is what is validated and written.
    average: float = 0.998
    # Seed of the crops and of the first weights.
    seed: int = 0
    # `bfloat16`, or `float32` for CPUs without AMX or AVX512-BF16.
    precision: str = "bfloat16"
    # Number of photos, and of styles, that the learning curve is measured on.
    valid_images: int = 4
    # Minutes between two validations.
    validate_minutes: float = 10.0
    # Minutes between two checkpoints: how much a kill may cost.
    checkpoint_minutes: float = 3.0
    # Shape of the network: fields of `imgtx.models.style_config.StyleConfig`.
    model: dict[str, Any] = field(default_factory=dict)
    # Weights of the parts of the loss: fields of `imgtx.training.style.weights.StyleWeights`, with a teacher of
    # `TeacherWeights`.
    loss_weights: dict[str, float] = field(default_factory=dict)

    @property
    def config(self) -> StyleConfig:
        return StyleConfig(**self.model)

    @property
    def weights(self) -> StyleWeights | TeacherWeights:
        return (TeacherWeights if self.teacher else StyleWeights)(**self.loss_weights)


def make_style_spec(values: dict[str, Any], path: Path) -> StyleSpec:
    """Check values out of the file `path`; the UsageError names the field, what was given and what is allowed."""
    check_fields(values, StyleSpec, str(path))
    check_fields(values.get("model", {}), StyleConfig, f"{path} [model]")
    kind = TeacherWeights if values.get("teacher") else StyleWeights
    check_fields(values.get("loss_weights", {}), kind, f"{path} [loss_weights]")
    missing = [name for name in ("name", "styles") if name not in values]
    if missing:
        raise UsageError(f"{path} lacks {', '.join(missing)}: a style training spec needs name and styles")
    spec = StyleSpec(**values)
    check_course(spec, path)
    if spec.teacher not in ("", PAINTING, STYLES, BOTH):
        raise UsageError(
            f"{path}: teacher = {spec.teacher!r}: must be {PAINTING}, {STYLES} or {BOTH}, or empty for none"
        )
    for name in ("per_style", "style_side", "pieces", "teacher_pictures"):
        if getattr(spec, name) < 1:
            raise UsageError(f"{path}: {name} = {getattr(spec, name)}: must be 1 or more")
    if not 0 <= spec.grey <= 1:
        raise UsageError(f"{path}: grey = {spec.grey}: must be a share, 0 to 1")
    if spec.batch % spec.per_style:
        raise UsageError(f"{path}: batch = {spec.batch} is not a multiple of per_style = {spec.per_style}")
    try:
        multiple = spec.config.multiple
    except ValueError as error:
        raise UsageError(f"{path} [model]: {error}") from error
    if spec.teacher:
        _check_taught(spec, multiple, path)
    else:
        _check_sides(spec, multiple, path)
    for name in ("train", "valid", "valid_styles"):
        if (folder := getattr(spec, name)) and not Path(folder).is_dir():
            raise UsageError(f"{path}: {name} = {folder!r} is not a folder: give one that contains images")
    if not Path(spec.styles).exists():
        raise UsageError(
            f"{path}: styles = {spec.styles!r} is not there: give a folder of pictures, or a picture"
        )
    return spec


def _check_sides(spec: StyleSpec, multiple: int, path: Path) -> None:
    for name, also in (("crop", multiple), ("style_side", spec.config.style_multiple)):
        if (side := getattr(spec, name)) % CROP_MULTIPLE or side % also:
            raise UsageError(
                f"{path}: {name} = {side}: must be a multiple of {CROP_MULTIPLE} px and of the model's {also} px"
            )


def _check_taught(spec: StyleSpec, multiple: int, path: Path) -> None:
    """Check what a teacher's pictures and numbers ask for."""
    if spec.crop % multiple or spec.crop > LARGEST_CROP:
        raise UsageError(
            f"{path}: crop = {spec.crop}: with a teacher it must be a multiple of the model's {multiple} px, and "
            f"{LARGEST_CROP} at most"
        )
    if spec.weights.see_styles and spec.crop <= CROP_MULTIPLE:  # type: ignore[union-attr]  # there is a teacher
        raise UsageError(
            f"{path}: crop = {spec.crop}: must be more than {CROP_MULTIPLE} where content, moments or sliced counts"
        )
    if spec.style_side != TAUGHT_SIDE:
        raise UsageError(f"{path}: style_side = {spec.style_side}: with a teacher it must be {TAUGHT_SIDE}")
    if spec.teacher_pictures < spec.batch:
        raise UsageError(
            f"{path}: teacher_pictures = {spec.teacher_pictures}: must be batch = {spec.batch} or more"
        )
    if spec.config.code != NUMBERS:
        raise UsageError(
            f"{path} [model]: code = {spec.config.code}: with a teacher it must be {NUMBERS}, its numbers"
        )
