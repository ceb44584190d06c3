"""Package a trained text-to-image weight file: 16 bits, its quality measured, and a model card with random samples."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import imgtx
from imgtx.errors import UsageError
from imgtx.inference.generator import Generator
from imgtx.models.info import ModelInfo
from imgtx.models.text_to_image_model import TextToImageModel
from imgtx.models.weight_file import file_digest
from imgtx.models.weights import load_model, save_weights
from imgtx.training.scenes.examination import Question, questions
from imgtx.training.text_to_image.drawing import COLUMNS, sheet
from jobs.evaluation.protocol import Quality
from jobs.evaluation.text_to_image import TASK

# Samples on the card: the first of each of these kinds of prompts, none of them chosen.
SAMPLED, SAMPLES = ("pair", "count", "relation", "background"), COLUMNS


def package_text_to_image(
    weights: Path, *, benchmarks: Sequence[Path], out: Path, commit: str, command: str
) -> tuple[Path, Path, ModelInfo]:
    """Write `<name>.safetensors`, `<name>.md`, `<name>.json` and `<name>-samples.png` into `out`.

    Quality is measured on the rounded weights; benchmarks: folders of captioned pictures, or none. Returns weights,
    card and info; UsageError for weights of another task.
    """
    model = load_model(weights)
    if not isinstance(model, TextToImageModel):
        raise UsageError(f"{weights} is for {model.info.task}: expected weights for {TASK.task}")
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{model.info.name}.safetensors"
    training = model.info.training | {"commit": commit, "finished": f"{date.today()}", "command": command}
    training["spec"] = without_folder(training["spec"])
    info = replace(model.info, training=training)
    save_weights(path, model.network, info, half=True)
    quality = TASK.measure(path, info, benchmarks, "")
    path.with_suffix(".json").write_text(
        json.dumps(quality.values | {"digest": file_digest(path)}, indent=1) + "\n"
    )
    generator = imgtx.load(path)
    assert isinstance(generator, Generator)
    asked = [question for kind in SAMPLED for question in questions(kind, SAMPLES)]
    pictures = np.stack([generator(question.prompt, seed=question.seed) for question in asked])
    samples = path.with_name(f"{info.name}-samples.png")
    sheet(pictures).save(samples, optimize=True)
    card = path.with_suffix(".md")
    parameters = sum(p.numel() for p in model.network.parameters())
    card.write_text(card_text(info, quality, file_digest(path), parameters, asked, samples.name))
    return path, card, info


def without_folder(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the spec for others: the folder of the machine that trained means nothing elsewhere."""
    return {name: value for name, value in spec.items() if name != "pictures"}


def card_text(
    info: ModelInfo, quality: Quality, digest: str, parameters: int, asked: list[Question], samples: str
) -> str:
    """Return the model card in Markdown."""
    training = info.training
    spec: dict[str, Any] = training["spec"]
    curve = ", ".join(f"{h['valid_attributes']:.0%} at {h['step']}" for h in training["history"])
    began = training.get("started_from")
    started = f", started from {began['name']} of {began['steps']} steps" if began else ""
    rows = "\n".join(
        f"- row {1 + at // COLUMNS}: " + "; ".join(question.prompt for question in asked[at : at + COLUMNS])
        for at in range(0, len(asked), COLUMNS)
    )
    return f"""# {info.name}

Images of {info.multiple} x {info.multiple} pixels from text: shapes with colours, number, size, place, relation and
background, and emoji in several drawing styles.

- weights: `{info.name}.safetensors`, 16 bits, {parameters / 1e6:.1f} million parameters, SHA-256 `{digest}`
- licence: {info.licence}
- data: {training["data"] or "the spec does not say"}
- recipe: {training["steps"]} steps of batch {spec["batch"]}, {training["minutes"]} minutes of computing,
  {spec["precision"]}, {spec["optimizer"]} at {spec["peak_lr"]}, weight average {spec["average"]}, share of scenes
  {spec["scene_share"]}, seed {spec["seed"]}{started}, torch {training["torch"]}, commit {training["commit"]}
- shape: {json.dumps(spec["model"]) if spec["model"] else "the defaults of `TextToImageConfig`"}
- again: `{training["command"]}`
- attributes that are right, by step, on prompts of what is held out: {curve or "not measured on the way"}

{quality.text}
![Samples]({samples})

The first {SAMPLES} prompts of each kind, none chosen, each with its number as seed:

{rows}
"""
