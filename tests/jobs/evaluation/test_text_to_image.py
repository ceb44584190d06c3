"""The protocol for models that make images from text, with models that draw the truth or something else."""

from types import SimpleNamespace

import numpy as np
import pytest

from imgtx.errors import UsageError
from imgtx.models.info import ModelInfo
from imgtx.training.scenes.captions import random_description
from imgtx.training.scenes.drawing import draw
from imgtx.training.scenes.examination import KINDS, questions
from imgtx.training.scenes.held_out import held_out_of
from jobs.evaluation import protocol, text_to_image
from jobs.evaluation.datasets import Dataset
from jobs.evaluation.protocol import run_protocol
from jobs.evaluation.protocols import PROTOCOLS
from jobs.evaluation.report import ProtocolReport, Row
from jobs.evaluation.text_to_image import SHUFFLED, TRUTH, scene_rows

COUNT = 6
INFO = ModelInfo("painter", "text-to-image", 1, 64, 0)


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch):
    monkeypatch.setattr(text_to_image, "PROMPTS", COUNT)


class Painter:
    """Draws what prompts mean, `scale` times as large, or with `wrong` something else."""

    def __init__(self, kind: str, *, scale: int = 1, wrong: bool = False):
        self.info, self.scale, self.wrong = INFO, scale, wrong
        self.meant = {question.prompt: question.description for question in questions(kind, COUNT)}

    def __call__(self, prompt: str, *, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        picture = draw(random_description(rng) if self.wrong else self.meant[prompt], rng)
        return picture.repeat(self.scale, 0).repeat(self.scale, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_questions_are_fixed_and_of_their_kind(kind):
    asked = questions(kind, COUNT)
    assert asked[:3] == questions(kind, 3)
    assert {held_out_of(q.description) for q in asked} == {
        frozenset() if kind == "seen" else frozenset({kind})
    }


@pytest.mark.parametrize("scale", [1, 2])
def test_a_model_that_draws_what_is_asked_gets_full_marks_and_others_do_not(scale):
    rows = {row.method: row.means for row in scene_rows(Painter("pair", scale=scale), Dataset("pair", ()))}
    assert rows["painter"]["everything %"] == rows[TRUTH]["everything %"] == 100
    assert rows[SHUFFLED]["everything %"] == 0
    (wrong,) = (
        row for row in scene_rows(Painter("pair", wrong=True), Dataset("pair", ())) if row.method == "painter"
    )
    assert wrong.means["everything %"] == 0
    assert wrong.means["attributes %"] < 50


def test_pictures_of_another_shape_are_refused():
    predictor = SimpleNamespace(info=INFO)

    class Wide:
        info = predictor.info

        def __call__(self, prompt, *, seed):
            return np.zeros((64, 96, 3), np.uint8)

    with pytest.raises(UsageError, match="squares of a multiple of 64"):
        list(scene_rows(Wide(), Dataset("seen", ())))


@pytest.mark.parametrize("given", [(), ("emoji",)])
def test_a_card_has_captions_where_captioned_pictures_are_given(tmp_path, monkeypatch, given):
    folders = [tmp_path / name for name in given]
    for folder in folders:
        folder.mkdir()
        (folder / "a.parquet").write_bytes(b"")
    asked = []

    def measured(protocol, weights, datasets):
        asked.append((protocol.name, [dataset.name for dataset in datasets]))
        rows = (Row("d", "c", "painter", 1, {"found %": 1.0}),)
        return ProtocolReport("painter", "", protocol.name, protocol.text, "cpu", "float32", "", 1, "", rows)

    monkeypatch.setattr(protocol, "run_protocol", measured)
    quality = text_to_image.measure_quality(tmp_path / "w", INFO, folders, "")
    assert asked == [("scenes", []), *(("captions", [name]) for name in given)]
    assert ("--protocol captions" in quality.text) is ("captions" in quality.values) is bool(given)


def test_the_protocol_takes_no_datasets(tmp_path):
    with pytest.raises(UsageError, match="it makes its own data"):
        run_protocol(PROTOCOLS["scenes"], "text-to-image", [Dataset("set5", ())])
