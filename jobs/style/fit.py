"""Fit a style transfer model to one style picture: minutes of training from weights that know all styles."""

import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from imgtx.errors import UsageError
from imgtx.inference.processor import this_processor
from imgtx.inference.style_picture import open_style
from imgtx.models.info import ModelInfo
from imgtx.models.style_config import StyleConfig
from imgtx.models.style_model import StyleModel, look_at_style, shortened
from imgtx.models.weight_file import STYLE_TASK, find_weights, opened, read_facts
from imgtx.models.weights import load_model, save_weights
from imgtx.training.features.packages import require
from imgtx.training.features.vgg16 import NAME
from imgtx.training.style.spec import OBJECTIVE, make_style_spec
from jobs.train.terminal import run_training
from pipeline.models.resolve import local_model

SUFFIX = ".safetensors"
# What a run of `fit` leaves beside its output until it has ended.
UNFINISHED = ".fitting"
# Pixels a side of what is trained on.
CROP = 256
# How much the content counts: for one style alone, whose strokes need not give way to any other, a third as much.
CONTENT = 0.3
# Tokens of the style's memory that are kept: the file stays under 1.5 MB.
MOST_TOKENS = 192


@dataclass(frozen=True)
class FitOptions:
    """model: what to start from. photos: a folder of contents; None: procedural pictures. steps: updates."""

    model: str = "style"
    photos: Path | None = None
    steps: int = 300
    seed: int = 0


def fit(style: Path, output: Path, options: FitOptions, console: Console) -> Path:
    """Fit a model to the picture `style` and write it to `output`; the same call continues after an interruption.

    Raises UsageError for an output that is no weight file's name, a picture that cannot be a style, weights of another
    task, and where the network of the losses is not built.
    """
    if output.suffix != SUFFIX:
        raise UsageError(f"-o {output}: must end in {SUFFIX}, as weight files do")
    if not os.access(output.parent, os.W_OK):
        raise UsageError(f"-o {output}: its folder is not there or cannot be written to: give another")
    if not style.is_file():
        raise UsageError(f"{style} is not there: give one style picture")
    painted = open_style(style)
    require(NAME)
    weights, config, info = read_style_weights(options.model)
    values = {
        "objective": OBJECTIVE,
        "name": output.stem,
        "styles": str(style),
        "train": str(options.photos) if options.photos else "",
        "steps": options.steps,
        "init_from": str(weights),
        "batch": 2,
        "per_style": 2,
        "crop": CROP,
        "valid_images": 1,
        "peak_lr": 8e-4,
        "constant_lr_share": 0.5,
        "average": 0.98,
        "seed": options.seed,
        "precision": "float32" if "bfloat16" in this_processor().emulated else "bfloat16",
        "data_note": f"fitted to {style.name}, from {info.name}",
        "licence": info.licence,
        "model": asdict(config),
        "grey": 0.5,
        "loss_weights": {"content": CONTENT},
    }
    folder = output.with_suffix(UNFINISHED)
    trained = load_model(run_training(make_style_spec(values, Path("style fit")), folder, console))
    assert isinstance(trained, StyleModel)
    info = replace(trained.info, style=style.stem)
    own = shortened(look_at_style(trained.network, painted), MOST_TOKENS)
    save_weights(output, trained.network, info, half=True, own=own)
    shutil.rmtree(folder)
    return output


def read_style_weights(model: str) -> tuple[Path, StyleConfig, ModelInfo]:
    """Return the file, the shape and the facts of weights for any style; UsageError for others."""
    path = find_weights(local_model(model, None))
    with opened(path, framework="numpy") as file:
        config, info = read_facts(file, path)
    if not isinstance(config, StyleConfig):
        raise UsageError(f"--model {model} is for {info.task}: expected one for {STYLE_TASK}")
    if info.style:
        raise UsageError(
            f"--model {model} was fitted to {info.style}: expected one for any style, such as style"
        )
    return path, config, info
