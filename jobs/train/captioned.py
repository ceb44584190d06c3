"""A training of text-to-image on captioned pictures out of Parquet files."""

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from imgtx.inference.predictor import default_device
from imgtx.models.text_to_image_config import TextToImageConfig
from imgtx.models.text_to_image_tokenizer import Tokenizer
from imgtx.models.weight_file import find_weights, opened, read_facts
from imgtx.training.data.left_out import LeftOut
from imgtx.training.feeds import Data
from imgtx.training.loop import train
from imgtx.training.scenes.drawing import SIDE
from imgtx.training.scenes.examination import KINDS, questions
from imgtx.training.state import CHECKPOINT
from imgtx.training.text_to_image.drawing import DrawingFromText
from imgtx.training.text_to_image.feed import CaptionedFeed
from imgtx.training.text_to_image.spec import TextToImageSpec
from imgtx.training.threads import Threads
from jobs.evaluation.captioned_pictures import Captioned, read_pictures, vocabulary


def train_text_to_image(
    spec: TextToImageSpec,
    folder: Path,
    report: Callable[[dict[str, Any]], None],
    threads: Threads | None = None,
    first_weights: str = "",
) -> Path:
    """Train, or continue training, on this machine, as `imgtx.training.loop.train`; return the weight file.

    The words and styles are those of the pictures that the training began with, also where others follow; with
    `init_from` those of the weights come first, so that each keeps its meaning.
    """
    left_out = LeftOut()
    none = Captioned(np.empty(0), [], vocabulary([]), ())
    found = read_pictures(Path(spec.pictures), left_out) if spec.pictures else none
    words = recorded_words(folder / CHECKPOINT)
    if not words:
        known = words_of_weights(first_weights or spec.init_from)
        words = {
            "vocabulary": tuple(dict.fromkeys(known.vocabulary + found.vocabulary)),
            "styles": tuple(dict.fromkeys(known.styles + found.styles)),
        }
    config = TextToImageConfig(side=SIDE, **words, **spec.model)
    feed = CaptionedFeed(
        Tokenizer(config.vocabulary, config.max_tokens),
        found.pictures,
        found.subjects,
        batch=spec.batch,
        scene_share=spec.scene_share,
        seed=spec.seed,
    )
    each = -(-spec.valid_prompts // len(KINDS))
    asked = [question for kind in KINDS for question in questions(kind, each)][: spec.valid_prompts]
    return train(
        spec,
        folder,
        report,
        data=Data(feed, asked, left_out),
        objective=DrawingFromText(spec, config),
        device=default_device(),
        threads=threads,
        first_weights=first_weights,
    )


def words_of_weights(init_from: str) -> TextToImageConfig:
    """Return the config of the weights that a training starts from; an empty one where there are none, or of a network
    that knows no words."""
    if not init_from:
        return TextToImageConfig()
    path = find_weights(init_from)
    with opened(path, framework="numpy") as file:
        config, _ = read_facts(file, path)
    return config if isinstance(config, TextToImageConfig) else TextToImageConfig()


def recorded_words(checkpoint: Path) -> dict[str, Any]:
    """Return vocabulary and styles of the network in a checkpoint; nothing where there is none, or it lacks them."""
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return {name: tuple(state["config"][name]) for name in ("vocabulary", "styles")}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, UnpicklingError):
        # A damaged one is named when the training resumes.
        return {}
