"""Finish a trained weight file: measure its halo and its quality, write both into it, and lay a card beside it.

Everything the card says can be measured again by the commands it names.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from imgtx.codecs import decode
from imgtx.degradations import DEGRADATIONS
from imgtx.degradations.holes import random_mask
from imgtx.errors import ModelError
from imgtx.imageops.holes import with_mask
from imgtx.models.info import ModelInfo
from imgtx.models.transformer import EncoderDecoder
from imgtx.models.weight_file import file_digest
from imgtx.models.weights import load_model, save_weights
from imgtx.probing.halo import HaloReport, measure_halo
from imgtx.training.spec import with_current_names
from jobs.evaluation.card_quality import Quality, measure_quality
from jobs.evaluation.super_resolution import find_datasets

HALO_PHOTOS = 3
PICTURES = {
    "curves": "Loss and validation PSNR-Y by step",
    "strip": "The first validation pictures by name, cut from the middle; PSNR-Y of the whole picture",
}
TITLES = {
    "super-resolution": "Super-resolution x{scale}",
    "restoration": "Restoration at the same size",
    "inpainting": "Inpainting",
}


@dataclass(frozen=True)
class Finished:
    """What `finish` made."""

    weights: Path
    card: Path
    info: ModelInfo


def finish(
    weights: Path, *, photos: Path, benchmarks: Sequence[Path], out: Path, command: str = ""
) -> Finished:
    """Measure `weights` and write `<name>.safetensors`, `<name>.md` and `<name>.json` into `out`.

    photos: clean photos for the halo, never a benchmark; benchmarks: datasets for the table; command: what trained
    these weights, where it was not `imgtx train` with the spec of their name.
    Raises ModelError where no halo makes tiled equal untiled.
    """
    find_datasets(benchmarks)  # a mistyped folder is told at once, not after minutes
    model = load_model(weights)
    assert isinstance(model.network, EncoderDecoder)  # load_model reads nothing else
    seen = [as_seen(photo, model.info) for photo in read_photos(photos)]
    with Console(stderr=True).status("") as line:
        halo = measure_halo(
            model,
            seen,
            candidates=halos_for(seen, model.info.multiple),
            told=lambda words: line.update(words),
        )
    if halo.halo is None:
        raise ModelError(f"{weights}: no measured halo makes tiled output equal untiled: {halo.differences}")
    degradation = model.info.training["spec"].get("degradation", "bicubic")
    quality = measure_quality(weights, model.info, benchmarks, degradation)
    training = model.info.training | {"commit": commit(), "finished": f"{date.today()}"}
    training["metrics"] = quality.metrics
    training["spec"] = without_paths(training["spec"])
    training["command"] = command or f"imgtx train {spec_of(model.info.name)}"
    info = replace(model.info, halo=halo.halo, training=training)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{info.name}.safetensors"
    save_weights(path, model.network, info)
    path.with_suffix(".json").write_text(
        json.dumps(quality.values | {"digest": file_digest(path)}, indent=1) + "\n"
    )
    card = path.with_suffix(".md")
    card.write_text(card_text(info, quality, halo, file_digest(path)) + pictures(weights.parent, path))
    return Finished(path, card, info)


def spec_of(name: str) -> str:
    """The spec that trained the weights of this name, as far as can be told: this project's own, or the user's."""
    own = Path("jobs") / "specs" / f"{name}.toml"
    return str(own) if (Path(__file__).parents[2] / own).is_file() else own.name


def read_photos(folder: Path, most: int = HALO_PHOTOS) -> list[np.ndarray]:
    """The first photos by name: uint8 (H, W, 3), cut to at most 512 px a side."""
    files = [path for dataset in find_datasets([folder]) for path in dataset.files][:most]
    return [decode(path.read_bytes(), max_pixels=100_000_000).pixels[:512, :512] for path in files]


def halos_for(photos: Sequence[np.ndarray], multiple: int) -> list[int]:
    """Up to six multiples by halves, as far as tiles with such halos still cut every photo."""
    side = min(min(photo.shape[:2]) for photo in photos)
    finest = multiple // 2 if multiple % 2 == 0 else multiple
    return [halo for halo in range(finest, 6 * multiple + 1, finest) if 4 * halo < side] or [finest]


def as_seen(photo: np.ndarray, info: ModelInfo) -> np.ndarray:
    """A photo as the model gets it: for one that fills holes with some, by a fixed seed."""
    if not info.masks:
        return photo
    return with_mask(photo, random_mask(np.random.default_rng(0), photo.shape[0], photo.shape[1], "medium"))


def card_text(info: ModelInfo, quality: Quality, halo: HaloReport, digest: str) -> str:
    """The model card in Markdown."""
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
    return f"""# {info.name}

{TITLES[info.task].format(scale=info.scale)}: {DEGRADATIONS[spec.get("degradation", "bicubic")].card}

- weights: `{info.name}.safetensors`, SHA-256 `{digest}`
- licence: {info.licence}
- data: {training["data"] or "the spec does not tell"}; validated on other pictures; no benchmark was
  trained on or chosen by
- recipe: {training["steps"]} steps of batch {spec["batch"]} x {spec["crop"]} px, {training["minutes"]} minutes of
  computing, {arithmetic}, {optimizer} at {spec["peak_lr"]} {schedule}, {loss}, weight average
  {spec["average"]} (its last state), seed {spec["seed"]}{warm(training)}, torch {training["torch"]}, commit
  {training["commit"]}
- shape: {json.dumps(spec["model"]) if spec["model"] else "the defaults of `imgtx.models.info.ModelConfig`"}
- again: `{training["command"]}`
- PSNR-Y in dB by step on {spec["valid_images"]} validation photos: {curve}
- halo {info.halo} px, multiple {info.multiple} px: the largest difference of tiled and untiled output on the first
  {HALO_PHOTOS} photos of `--photos`, of which at most 512 px a side were taken ({differences})
- halo, quality and this card again: `imgtx models finish {info.name}.safetensors DATASETS --photos PHOTOS`

{quality.text}"""


def pictures(folder: Path, weights: Path) -> str:
    """Copy the pictures that training left in `folder` beside `weights`; what the card says of those there are."""
    told = ""
    for name, text in PICTURES.items():
        if (folder / f"{name}.png").is_file():
            copy = weights.with_name(f"{weights.stem}-{name}.png")
            shutil.copyfile(folder / f"{name}.png", copy)
            told += f"\n![{text}]({copy.name})\n\n{text}.\n"
    return told


def without_paths(spec: dict[str, Any]) -> dict[str, Any]:
    """The training spec as it is told to others: folders of the machine that trained mean nothing elsewhere."""
    kept = {name: value for name, value in spec.items() if name not in ("train", "valid")}
    return kept | {"init_from": Path(spec["init_from"]).stem}


def warm(training: dict[str, Any]) -> str:
    """What the training began with, so that nobody takes its steps for all there were."""
    if not (start := training.get("started_from")):
        return ""
    return f", started from {start['name']} of {start['steps']} steps (SHA-256 `{start['digest'][:16]}`)"


def commit() -> str:
    """The commit of the checkout this runs from, or "unknown"."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
