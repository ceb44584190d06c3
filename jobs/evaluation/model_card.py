"""Package a trained weight file: measure its halo and quality, write both into it, and a model card beside it.

Everything the card says can be measured again by the commands it names.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console

from imgtx.codecs import decode
from imgtx.degradations import DEGRADATIONS
from imgtx.degradations.holes import random_mask
from imgtx.errors import ModelError, UsageError
from imgtx.imageops.holes import with_mask
from imgtx.inference.style_picture import open_style
from imgtx.models.info import ModelInfo
from imgtx.models.style_model import StyleModel
from imgtx.models.transformer import EncoderDecoder
from imgtx.models.weight_file import TEXT_TASK, file_digest
from imgtx.models.weights import load_model, save_weights
from imgtx.probing.halo import HaloReport, measure_halo
from imgtx.training.spec import with_current_names
from jobs.evaluation.datasets import find_datasets
from jobs.evaluation.protocol import Quality
from jobs.evaluation.protocols import TASKS
from jobs.evaluation.style_card import HALO_STYLES, measure_style_halo, style_card_text
from jobs.evaluation.text_to_image_card import package_text_to_image

HALO_PHOTOS = 3
PICTURES = {
    "curves": "Loss and validation PSNR-Y by step",
    "strip": "The first validation pictures by name, cut from the middle; PSNR-Y of the whole picture",
}
STYLE_FOLDERS = ("train", "styles", "valid", "valid_styles", "init_from")
# The folders of a training mean nothing on another machine.
REPEAT = "imgtx train {spec} --set train=PHOTOS --set valid=OTHERS"
TEXT_REPEAT = "imgtx train {spec} --set pictures=PICTURES"


@dataclass(frozen=True)
class PackagedModel:
    """What `package` wrote."""

    weights: Path
    card: Path
    info: ModelInfo


def package(
    weights: Path,
    *,
    photos: Path | None,
    benchmarks: Sequence[Path],
    out: Path,
    command: str = "",
    half: bool = False,
) -> PackagedModel:
    """Measure `weights` and write `<name>.safetensors`, `<name>.md` and `<name>.json` into `out`.

    photos: clean photos for the halo, never a benchmark; benchmarks: datasets for the table; models that make images
    from text need neither, and are measured by captions, too, where folders of captioned pictures are given. command:
    what trained these weights, where it was not `imgtx train` with the spec of their name. half: store float16, half
    the size, and measure with it; weights for style and text always are. Raises ModelError where no halo makes tiled
    equal untiled.
    """
    model = load_model(weights)
    if model.info.task not in TASKS:
        raise UsageError(f"{weights} is for {model.info.task}: cards are made for {', '.join(TASKS)}")
    if model.info.task == TEXT_TASK:
        again = command or TEXT_REPEAT.format(spec=spec_of(model.info.name))
        return PackagedModel(
            *package_text_to_image(weights, benchmarks=benchmarks, out=out, commit=commit(), command=again)
        )
    if photos is None:
        raise UsageError(f"{weights} needs --photos to measure its halo on: give a folder of clean photos")
    # A mistyped folder is reported at once, not after minutes.
    find_datasets(benchmarks)
    if isinstance(model, StyleModel):
        return package_style(model, weights, photos=photos, benchmarks=benchmarks, out=out, command=command)
    # load_model reads nothing else of these tasks.
    assert isinstance(model.network, EncoderDecoder)
    seen = [as_seen(photo, model.info) for photo in read_photos(photos)]
    degradation = model.info.training["spec"].get("degradation", "bicubic")
    with TemporaryDirectory(prefix="imgtx-package-") as folder:
        # What is measured is what will be stored.
        measured = Path(folder) / weights.name
        save_weights(measured, model.network, model.info, half=half)
        halo = measure_tiles(measured, seen)
        if halo.halo is None:
            raise ModelError(
                f"{weights}: no measured halo makes tiled output equal untiled: {halo.differences}"
            )
        quality = TASKS[model.info.task].measure(measured, model.info, benchmarks, degradation)
    training = dated(model.info.training)
    training["metrics"] = quality.metrics
    training["spec"] = without_paths(training["spec"])
    training["command"] = command or REPEAT.format(spec=spec_of(model.info.name))
    info = replace(model.info, halo=halo.halo, training=training)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{info.name}.safetensors"
    save_weights(path, model.network, info, half=half)
    path.with_suffix(".json").write_text(
        json.dumps(quality.values | {"digest": file_digest(path)}, indent=1) + "\n"
    )
    card = path.with_suffix(".md")
    card.write_text(card_text(info, quality, halo, file_digest(path), half) + pictures(weights.parent, path))
    return PackagedModel(path, card, info)


def package_style(
    model: StyleModel, weights: Path, *, photos: Path, benchmarks: Sequence[Path], out: Path, command: str
) -> PackagedModel:
    """Package style transfer weights in 16 bits; benchmarks: a folder of contents and one of styles."""
    *_, styles = find_datasets(benchmarks)
    seen = read_photos(photos)
    own = model.info.style
    painted = [None] if own else [open_style(path) for path in styles.files[:HALO_STYLES]]
    measured = measure_style_halo(model, seen, painted, halos_for(seen, model.info.multiple))
    quality = TASKS[model.info.task].measure(weights, model.info, benchmarks, "")
    training = {"spec": {}} | dated(model.info.training)
    kept = {name: value for name, value in training["spec"].items() if name not in STYLE_FOLDERS}
    training["spec"] = kept
    if own:
        again = f"imgtx style fit {own}.jpg -o {model.info.name}.safetensors --photos PHOTOS"
    else:
        again = f"imgtx train {spec_of(model.info.name)} --set train=PHOTOS --set styles=PAINTINGS"
    training["command"] = command or again
    info = replace(model.info, halo=measured.halo, training=training)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{info.name}.safetensors"
    save_weights(path, model.network, info, half=True, own=model.own)
    digest = file_digest(path)
    path.with_suffix(".json").write_text(json.dumps(quality.values | {"digest": digest}, indent=1) + "\n")
    card = path.with_suffix(".md")
    card.write_text(style_card_text(info, quality, measured.report, digest))
    return PackagedModel(path, card, info)


def spec_of(name: str) -> str:
    """Return the spec that trained the weights of this name, by its name: this project's own, or the user's."""
    own = Path("jobs") / "specs" / f"{name}.toml"
    return str(own) if (Path(__file__).parents[2] / own).is_file() else own.name


def read_photos(folder: Path, most: int = HALO_PHOTOS) -> list[np.ndarray]:
    """Read the first photos by name: uint8 (H, W, 3), cut to at most 512 px a side."""
    files = [path for dataset in find_datasets([folder]) for path in dataset.files][:most]
    return [decode(path.read_bytes(), max_pixels=100_000_000).pixels[:512, :512] for path in files]


def halos_for(photos: Sequence[np.ndarray], multiple: int) -> list[int]:
    """Return up to six multiples by halves, as far as tiles with such halos still cut every photo."""
    side = min(min(photo.shape[:2]) for photo in photos)
    finest = multiple // 2 if multiple % 2 == 0 else multiple
    return [halo for halo in range(finest, 6 * multiple + 1, finest) if 4 * halo < side] or [finest]


def as_seen(photo: np.ndarray, info: ModelInfo) -> np.ndarray:
    """Return a photo as the model gets it: for one that fills holes with some, by a fixed seed."""
    if not info.masks:
        return photo
    return with_mask(photo, random_mask(np.random.default_rng(0), photo.shape[0], photo.shape[1], "medium"))


def measure_tiles(weights: Path, seen: Sequence[np.ndarray]) -> HaloReport:
    """Measure the halo on photos as the model gets them."""
    model = load_model(weights)
    # The caller has seen to it: other networks have packaging of their own.
    assert isinstance(model.network, EncoderDecoder)
    with Console(stderr=True).status("") as line:
        return measure_halo(
            model,
            seen,
            candidates=halos_for(seen, model.info.multiple),
            report=lambda words: line.update(words),
        )


def dated(training: dict[str, Any]) -> dict[str, Any]:
    """Return the facts with the commit and the day, which are those of the first time where they are packaged again."""
    return {"commit": commit(), "finished": f"{date.today()}"} | training


def card_text(info: ModelInfo, quality: Quality, halo: HaloReport, digest: str, half: bool = False) -> str:
    """Return the model card in Markdown; half: the numbers are stored as float16."""
    training = info.training
    spec: dict[str, Any] = with_current_names(training["spec"])
    curve = ", ".join(f"{h['valid_psnr_y']:.2f} at {h['step']}" for h in training["history"])
    differences = "; ".join(
        f"halo {d.halo}: {d.as_float * 255:.3f} of 255, {d.as_uint8} levels after rounding"
        for d in halo.differences
    )
    loss = {"l1": "L1", "mse": "mean square", "psnr": "minus the PSNR of each crop"}[spec.get("loss", "l1")]
    optimizer = {"adamw": "Adam", "muon": "Muon (and Adam beside it)"}[spec.get("optimizer", "adamw")]
    schedule = (
        f"for {spec['constant_lr_share']:.0%} of the time, then a cosine"
        if spec.get("constant_lr_share")
        else "with cosine"
    )
    arithmetic = spec["precision"] + ("" if spec["precision"] == "float32" else " autocast")
    command = training["command"]
    folders = "; PHOTOS and OTHERS are folders with the photos named above" if "=PHOTOS" in command else ""
    title = TASKS[info.task].title.format(scale=info.scale)
    option = " --half" if half else ""
    first = f"{title}: {DEGRADATIONS[spec.get('degradation', 'bicubic')].card}"
    if quality.summary:
        first += f" {quality.summary}"
    return f"""# {info.name}

{first}

- weights: `{info.name}.safetensors`, {16 if half else 32} bits, SHA-256 `{digest}`
- licence: {info.licence}
- data: {training["data"] or "the spec does not say"}; validated on other pictures; no benchmark was
  trained on or chosen by
- recipe: {training["steps"]} steps of batch {spec["batch"]} x {spec["crop"]} px, {training["minutes"]} minutes of
  computing, {arithmetic}, {optimizer} at {spec["peak_lr"]} {schedule}, {loss}, weight average
  {spec["average"]} (its last state), seed {spec["seed"]}{warm(training)}, torch {training["torch"]}, commit
  {training["commit"]}
- shape: {json.dumps(spec["model"]) if spec["model"] else "the defaults of `imgtx.models.config.ModelConfig`"}
- again: `{command}`{folders}
- PSNR-Y in dB by step on {spec["valid_images"]} validation photos: {curve}
- halo {info.halo} px, multiple {info.multiple} px: the largest difference of tiled and untiled output on the first
  {HALO_PHOTOS} photos of `--photos`, of which at most 512 px a side were taken ({differences})
- halo, quality and this card again: `imgtx models package {info.name}.safetensors DATASETS --photos PHOTOS{option}`

{quality.text}"""


def pictures(folder: Path, weights: Path) -> str:
    """Copy the pictures that training left in `folder` beside `weights`; return what the card says of them."""
    text_of_all = ""
    for name, text in PICTURES.items():
        if (folder / f"{name}.png").is_file():
            copy = weights.with_name(f"{weights.stem}-{name}.png")
            shutil.copyfile(folder / f"{name}.png", copy)
            text_of_all += f"\n![{text}]({copy.name})\n\n{text}.\n"
    return text_of_all


def without_paths(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the training spec for others: folders of the machine that trained mean nothing elsewhere."""
    kept = {name: value for name, value in spec.items() if name not in ("train", "valid")}
    return kept | {"init_from": Path(spec["init_from"]).stem}


def warm(training: dict[str, Any]) -> str:
    """Return what the training started from: its own steps are not all there were."""
    if not (start := training.get("started_from")):
        return ""
    return f", started from {start['name']} of {start['steps']} steps (SHA-256 `{start['digest'][:16]}`)"


def commit() -> str:
    """Return the commit of the checkout this runs from, or "unknown"."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
