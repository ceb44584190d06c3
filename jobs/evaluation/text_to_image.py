"""Quality of models that make images from text: whether a program finds in their pictures what prompts ask for.

    scenes    prompts of shapes with colours, number, size, place, relation and background, none of which training drew
              together ("seen": which it did)
    captions  see `jobs.evaluation.caption_retrieval`

Beside the model: its pictures under the prompts of others, which is chance, and pictures drawn from what the prompts
mean, which is what the program finds at best.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from imgtx.errors import UsageError
from imgtx.models.generation import TASK as TEXT_TO_IMAGE
from imgtx.models.info import ModelInfo
from imgtx.training.scenes.drawing import SIDE, draw
from imgtx.training.scenes.examination import KINDS, Question, marks, questions
from jobs.evaluation.caption_retrieval import CANDIDATES, caption_rows, find_captioned
from jobs.evaluation.datasets import Dataset
from jobs.evaluation.protocol import Protocol, Quality, TaskEvaluation, measure_by
from jobs.evaluation.report import Row, with_progress

if TYPE_CHECKING:
    # These import torch.
    from imgtx.inference.generator import Generator
    from imgtx.inference.predictor import Predictor

# Prompts of each kind.
PROMPTS = 100
SHUFFLED, TRUTH = "prompts of others (control)", "drawn (control)"
CONDITIONS = {
    "pair": "colour and shape held out",
    "count": "number and shape held out",
    "relation": "two shapes in a relation held out",
    "background": "colour on background held out",
    "seen": "nothing held out",
}
# Shares that every kind of prompt speaks of, in the order of the table's columns.
SHOWN = ("attributes", "everything", "count", "colour", "shape", "pairing")


def scene_rows(predictor: "Predictor", dataset: Dataset) -> Iterator[Row]:
    """Measure prompts of one kind, which is the dataset's name."""
    # What `imgtx.load` returns for a model of this task.
    generator = cast("Generator", predictor)
    asked = questions(dataset.name, PROMPTS)
    made = [picture_of(generator, question) for question in with_progress(asked, f"prompts: {dataset.name}")]
    rng = np.random.default_rng(0)
    truth = [draw(question.description, rng) for question in asked]
    described = [question.description for question in asked]
    shuffled = [*described[1:], described[0]]
    for method, pictures, descriptions in (
        (predictor.info.name, made, described),
        (SHUFFLED, made, shuffled),
        (TRUTH, truth, described),
    ):
        found = marks(pictures, descriptions)
        means = {f"{name} %": 100 * found[name] for name in SHOWN}
        yield Row(dataset.name, CONDITIONS[dataset.name], method, len(pictures), means)


def picture_of(generator: "Generator", question: Question) -> np.ndarray:
    """Make the picture that a question asks for: (64, 64, 3) uint8, reduced where the model makes larger ones."""
    made = generator(question.prompt, seed=question.seed)
    factor = made.shape[0] // SIDE
    if made.shape[:2] != (factor * SIDE, factor * SIDE):
        raise UsageError(
            f"{generator.info.name} makes pictures of {made.shape[1]} x {made.shape[0]}: expected squares of a "
            f"multiple of {SIDE} pixels, which is what the program that checks them knows"
        )
    blocks = made.reshape(SIDE, factor, SIDE, factor, 3).astype(np.float32)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def measure_quality(weights: Path, info: ModelInfo, benchmarks: Sequence[Path], degradation: str) -> Quality:
    """Measure weights for their card: by captions, too, where folders of captioned pictures are given."""
    chosen = PROTOCOLS if benchmarks else {"scenes": PROTOCOLS["scenes"]}
    return measure_by(chosen, weights, info, benchmarks)[0]


PROTOCOLS = {
    "scenes": Protocol(
        "scenes",
        TEXT_TO_IMAGE,
        f"{PROMPTS} prompts of each kind, a seed each, the model's own settings; shares in % that a program finds "
        "right (imgtx.training.scenes.checker): of all attributes that prompts speak of, of pictures with everything "
        "right, and of pictures whose number, colours, shapes, and colours with their shapes are right",
        scene_rows,
        (),
        in_metrics=False,
        own_datasets=KINDS,
    ),
    "captions": Protocol(
        "captions",
        TEXT_TO_IMAGE,
        f"{CANDIDATES} concepts each, a seed each, the model's own settings; found: by MobileNetV2, which no training "
        f"used, and a discriminant that is fitted to held-out real pictures, among the {CANDIDATES} concepts, each by "
        "one held-out real picture; prompts of others: of the same style, which is what style alone finds; real "
        "pictures: of the same concepts in another style; memorised: less than a third as far from a picture of the "
        "training as from all of other concepts",
        caption_rows,
        (),
        in_metrics=False,
        find=find_captioned,
    ),
}
TASK = TaskEvaluation(TEXT_TO_IMAGE, "Images from text", measure_quality)
