"""The spec of a text-to-image training: a frozen, checked reading of a TOML file with `objective = "text-to-image"`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgtx.errors import UsageError
from imgtx.models.text_to_image_config import TextToImageConfig
from imgtx.settings import check_fields
from imgtx.training.scenes.drawing import SIDE
from imgtx.training.spec import check_course

OBJECTIVE = "text-to-image"
# Fields of the network that follow from the pictures, so [model] cannot set them.
DERIVED = ("side", "vocabulary", "styles")


@dataclass(frozen=True)
class TextToImageSpec:
    """Everything that decides the weights beside the pictures. `make docs` reads the comments."""

    # `text-to-image`, which tells this spec from those of other trainings.
    objective: str
    # Name of the model and of its weight file.
    name: str
    # Folder of Parquet files of pictures with captions: columns `style`, `caption`, `keywords` and `image` (the bytes
    # of a file, with alpha). Empty: procedural scenes only.
    pictures: str = ""
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
    # Pictures per step.
    batch: int = 64
    # Share of procedural scenes, drawn new for every batch, 0 to 1.
    scene_share: float = 0.75
    # `adamw`, or `muon`, which makes the updates of linear layers orthogonal.
    optimizer: str = "muon"
    # Highest learning rate. It rises for 2 % of the training and falls as a cosine.
    peak_lr: float = 1.5e-3
    # Share of the training at `peak_lr` between rising and falling, 0 to 0.9; may be changed on the way.
    constant_lr_share: float = 0.0
    # Decay of the weights.
    weight_decay: float = 0.0
    # Longest gradient; longer ones are scaled down.
    clip: float = 1.0
    # Decay of the weights' exponential average, which is what is validated and written.
    average: float = 0.999
    # Mean of the logit of the times at which noise is removed: the lower, the nearer to noise, where prompts decide.
    time_mean: float = -1.7
    # Its deviation.
    time_spread: float = 1.2
    # Share of captions that are left out, so that guidance works.
    drop: float = 0.1
    # Seed of the batches and of the first weights.
    seed: int = 0
    # `bfloat16`, or `float32` for CPUs without AMX or AVX512-BF16.
    precision: str = "bfloat16"
    # Number of prompts that the learning curve is measured on, of what training never draws.
    valid_prompts: int = 40
    # Minutes between two validations.
    validate_minutes: float = 10.0
    # Minutes between two checkpoints: how much a kill may cost.
    checkpoint_minutes: float = 3.0
    # Shape of the network: fields of `imgtx.models.text_to_image_config.TextToImageConfig`.
    model: dict[str, Any] = field(default_factory=dict)


def make_text_to_image_spec(values: dict[str, Any], path: Path) -> TextToImageSpec:
    """Check values out of the file `path`; the UsageError names the field, what was given and what is allowed."""
    check_fields(values, TextToImageSpec, str(path))
    check_fields(values.get("model", {}), TextToImageConfig, f"{path} [model]", without=DERIVED)
    if "name" not in values:
        raise UsageError(f"{path} lacks name: a training spec needs one, which the weights get")
    spec = TextToImageSpec(**values)
    check_course(spec, path)
    for name in ("scene_share", "drop"):
        if not 0 <= (share := getattr(spec, name)) <= 1:
            raise UsageError(f"{path}: {name} = {share}: must be 0 to 1")
    if not spec.time_spread > 0:
        raise UsageError(f"{path}: time_spread = {spec.time_spread}: must be more than 0")
    if spec.pictures and not Path(spec.pictures).is_dir():
        raise UsageError(
            f"{path}: pictures = {spec.pictures!r} is not a folder: give one with Parquet files, or leave it out to "
            f"train on procedural scenes only"
        )
    if not spec.pictures and spec.scene_share < 1:
        raise UsageError(
            f"{path}: scene_share = {spec.scene_share} without pictures: give a folder of them, or scene_share = 1"
        )
    try:
        TextToImageConfig(side=SIDE, **spec.model)
    except ValueError as error:
        raise UsageError(f"{path} [model]: {error}") from error
    return spec
