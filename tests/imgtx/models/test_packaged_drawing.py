"""The packaged weights that make images from text: card and file agree, and pictures show what prompts say."""

import json
import re

import numpy as np
import pytest

import imgtx
from imgtx.inference.generator import Generator
from imgtx.models.weight_file import file_digest, find_weights, packaged_folder, read_info
from imgtx.training.scenes.examination import Question, marks, questions
from tests.imgtx.models.test_packaged import DRAWING

(NAME,) = DRAWING
# Nothing of what they ask for together was in the training data.
ASKED = questions("pair", 16)


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    generator = imgtx.load(NAME)
    assert isinstance(generator, Generator)
    return [generator(question.prompt, seed=question.seed) for question in ASKED]


def shares(pictures: list[np.ndarray], asked: list[Question]) -> dict[str, float]:
    return marks(pictures, [question.description for question in asked])


def test_weights_card_and_scores_belong_to_one_model():
    digest, info = file_digest(find_weights(NAME)), read_info(NAME)[0]
    card = (packaged_folder() / f"{NAME}.md").read_text(encoding="utf-8")
    scores = json.loads((packaged_folder() / f"{NAME}.json").read_text(encoding="utf-8"))
    assert scores["digest"] == digest
    assert re.findall(r"\b[0-9a-f]{64}\b", card) == [digest]
    assert card.startswith(f"# {NAME}\n")
    assert f"licence: {info.licence}\n" in card
    assert info.task == "text-to-image"


def test_pictures_show_what_their_prompts_say_and_not_what_others_say(drawn):
    right, chance = shares(drawn, ASKED), shares(drawn, [*ASKED[1:], ASKED[0]])
    assert right["attributes"] > 0.4 > 2 * chance["attributes"]
    assert right["background"] > 0.9
    assert right["colour"] > 0.6


def test_a_seed_changes_the_picture_and_repeats_it(drawn):
    generator = imgtx.load(NAME)
    assert isinstance(generator, Generator)
    first = ASKED[0]
    assert np.array_equal(generator(first.prompt, seed=first.seed), drawn[0])
    assert not np.array_equal(generator(first.prompt, seed=first.seed + 1), drawn[0])
