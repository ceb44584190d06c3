"""Text-to-image training: pictures out of Parquet, a loss that falls, resumption, weights that draw."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console

from imgtx.errors import UsageError
from imgtx.models.text_to_image_model import TextToImageModel
from imgtx.models.weight_file import file_digest
from imgtx.models.weights import load_model
from imgtx.training.data.left_out import LeftOut
from imgtx.training.text_to_image.captioned import Subject, caption_of, held_out, split_words
from imgtx.training.text_to_image.feed import CaptionedFeed
from imgtx.training.text_to_image.spec import TextToImageSpec
from jobs.evaluation import text_to_image, text_to_image_card
from jobs.evaluation.model_card import package
from jobs.train.captioned import read_pictures, vocabulary
from jobs.train.specs import make_spec
from jobs.train.terminal import run_training

MODEL = {"patch": 16, "dim": 16, "heads": 2, "blocks": 1, "text_blocks": 1, "max_tokens": 24}
SPEC = Path("t.toml")


def saved(colour: tuple[int, int, int, int], size: tuple[int, int]) -> bytes:
    data = io.BytesIO()
    Image.new("RGBA", size, colour).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of one red apple in three styles; keywords as a list in one file, as text in the other."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    red = saved((200, 0, 0, 255), (72, 72))
    lists = [{"style": "noto", "caption": "Red apple", "keywords": ["fruit", "Red-Food"], "image": red}] * 6
    texts = [
        {"style": style, "caption": caption, "keywords": "fruit", "image": saved((0, 90, 0, 255), (96, 48))}
        for style, caption in [("fxemoji", "redapple"), ("streamline-emojis", "red apple 2")] * 3
    ]
    pq.write_table(pa.Table.from_pylist(lists), folder / "a.parquet")
    pq.write_table(pa.Table.from_pylist(texts), folder / "b.parquet")
    return folder


@pytest.fixture
def spec(pictures: Path) -> TextToImageSpec:
    return make(pictures=str(pictures))


def make(**changes: Any) -> TextToImageSpec:
    values = {
        "objective": "text-to-image", "name": "tiny", "steps": 6, "batch": 4, "precision": "float32",
        "scene_share": 0.5, "valid_prompts": 5, "average": 0.5, "model": MODEL,
    }  # fmt: skip
    found = make_spec(values | changes, SPEC, on_ray=False)
    assert isinstance(found, TextToImageSpec)
    return found


def test_pictures_are_squares_and_captions_words(pictures):
    arrays, subjects, *_ = read_pictures(pictures)
    assert arrays.shape == (12, 64, 64, 4)
    assert subjects[0] == Subject("red apple", "noto", ("fruit", "red food"))
    assert {(s.caption, s.style) for s in subjects[6:]} == {
        ("red apple", "fxemoji"),
        ("red apple", "streamline"),
    }
    # Twice as wide as high: above and below it is transparent.
    assert arrays[6][:15, :, 3].max() <= 2
    assert tuple(arrays[6][32, 32]) == (0, 90, 0, 255)
    assert {"red", "apple", "noto", "circle"} <= set(vocabulary(subjects))


def test_what_is_held_out_stays_out_in_all_skin_tones():
    assert Subject("man with dark skin tone", "noto").concept == Subject("man", "noto").concept
    assert Subject("waving hand medium light skin tone", "noto").concept == "waving hand"
    subjects = [Subject(f"thing {i}", style) for i in range(500) for style in ("noto", "twemoji")]
    reasons = [held_out(subject) for subject in subjects]
    assert 10 <= reasons.count("concept") / 2 <= 40
    assert 20 <= reasons.count("pair") <= 90


def test_a_feed_is_a_function_of_its_step_and_leaves_out_what_is_held_out(spec):
    subjects = [Subject(f"thing {i}", "noto") for i in range(60)]
    arrays = np.zeros((60, 64, 64, 4), np.uint8)
    arrays[..., 3] = 255
    arrays[..., 0] = np.arange(60)[:, None, None] + 100
    from imgtx.models.text_to_image_tokenizer import Tokenizer

    feed = CaptionedFeed(Tokenizer((), 40), arrays, subjects, batch=8, scene_share=0.25)
    one, again = feed.batch(3), feed.batch(3)
    assert one.captions == again.captions
    assert (one.pictures == again.pictures).all()
    assert (one.tokens == again.tokens).all()
    seen = {int(picture[0, 0, 0]) - 100 for step in range(40) for picture in feed.batch(step).pictures[2:]}
    assert seen
    assert not [i for i in seen if held_out(subjects[i])]


def test_captions_name_the_background_they_get():
    rng = np.random.default_rng(0)
    for _ in range(100):
        text, background = caption_of(Subject("apple", "noto", ("fruit",)), rng)
        assert ("background" in text or " on " in text) == bool(background)


def test_words_that_run_together_are_split_where_they_are_known():
    known = frozenset({"police", "car", "cars"})
    assert split_words("policecar bus", known) == "police car bus"
    assert split_words("policecarx", known) == "policecarx"


def test_training_writes_weights_that_draw(spec, tmp_path):
    path = run_training(spec, tmp_path / "run", Console(file=io.StringIO()))
    model = load_model(path)
    assert isinstance(model, TextToImageModel)
    assert model.sample(["a red circle"], [1], steps=2).shape == (1, 64, 64, 3)
    assert model.styles == ("noto", "fxemoji", "streamline")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert 0 <= lines[-1]["valid_attributes"] <= 1
    assert (tmp_path / "run" / "strip.png").is_file()


def test_packaged_weights_have_a_card_with_samples(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(text_to_image, "PROMPTS", 2)
    monkeypatch.setattr(text_to_image_card, "SAMPLES", 1)
    weights = run_training(spec, tmp_path / "run", Console(file=io.StringIO()))
    made = package(weights, photos=None, benchmarks=(), out=tmp_path / "out")
    assert made.weights.stat().st_size < weights.stat().st_size
    text = made.card.read_text()
    assert file_digest(made.weights) in text
    assert spec.pictures not in text + json.dumps(made.info.training)
    assert "| pair | colour and shape held out | tiny |" in text
    with Image.open(tmp_path / "out" / "tiny-samples.png") as samples:
        assert samples.size == (8 * 64, 64)


def test_interrupted_and_resumed_equals_uninterrupted(spec, tmp_path, monkeypatch):
    run_training(spec, tmp_path / "whole", Console(file=io.StringIO()))
    batch = CaptionedFeed.batch

    def interrupted(feed, step):
        if step == 3:
            raise KeyboardInterrupt
        return batch(feed, step)

    monkeypatch.setattr(CaptionedFeed, "batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_training(spec, tmp_path / "parts", Console(file=io.StringIO()))
    monkeypatch.undo()
    run_training(spec, tmp_path / "parts", Console(file=io.StringIO()))
    whole, parts = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts")
    )
    assert all(torch.equal(tensor, parts["average"][name]) for name, tensor in whole["average"].items())
    with pytest.raises(UsageError, match="began with drop"):
        run_training(make(pictures=spec.pictures, drop=0.2), tmp_path / "parts", Console(file=io.StringIO()))


def test_scenes_alone_need_no_pictures(tmp_path):
    path = run_training(make(scene_share=1.0, steps=1), tmp_path / "run", Console(file=io.StringIO()))
    assert path.is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "music"}, "must be text-to-image"),
        ({"scene_share": 2.0}, "scene_share = 2.0: must be 0 to 1"),
        ({}, "scene_share = 0.5 without pictures"),
        ({"pictures": "nowhere"}, "'nowhere' is not a folder"),
        ({"model": {"side": 32}}, "side"),
        ({"scene_share": 1.0, "model": {"patch": 7}}, "not a multiple of patch"),
        ({"time_spread": 0.0}, "time_spread"),
        ({"steps": 0}, "must be more than 0"),
        ({"batch": 0}, "batch = 0"),
        ({"crop": 48}, "crop"),
    ],
)
def test_a_spec_that_cannot_be(changes, message):
    with pytest.raises(UsageError, match=message):
        make(**changes)


def test_it_trains_on_one_machine():
    with pytest.raises(UsageError, match="trains on one machine"):
        make_spec({"objective": "text-to-image", "name": "x", "steps": 1}, SPEC, on_ray=True)


def test_a_file_without_the_columns_is_named(tmp_path):
    pq.write_table(pa.table({"caption": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="expected Parquet with columns"):
        read_pictures(tmp_path)
    with pytest.raises(UsageError, match=r"has no \.parquet file"):
        read_pictures(Path(__file__).parent)


def test_a_picture_that_cannot_be_read_is_left_out_and_counted(spec, pictures, tmp_path):
    rows = pq.read_table(pictures / "a.parquet").to_pylist()
    rows[1]["image"], rows[2]["image"] = b"no image", None
    pq.write_table(pa.Table.from_pylist(rows), pictures / "a.parquet")
    left_out = LeftOut()
    found = read_pictures(pictures, left_out)
    assert (len(found.pictures), len(found.subjects), len(left_out)) == (10, 10, 2)
    run_training(make(pictures=str(pictures), steps=2), tmp_path / "run", Console(stderr=True))
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text())["left_out"] == 2
    # Other words: the network keeps those that it began with.
    other = tmp_path / "other"
    other.mkdir()
    plums = [row | {"caption": "plum tart"} for row in rows if row["image"] == rows[0]["image"]]
    pq.write_table(pa.Table.from_pylist(plums), other / "a.parquet")
    weights = run_training(make(pictures=str(other), steps=4), tmp_path / "run", Console(stderr=True))
    model = load_model(weights)
    assert model.info.training["steps"] == 4
    assert "apple" in model.network.config.vocabulary


def test_weights_to_start_from_keep_their_words(spec, tmp_path):
    first = load_model(run_training(spec, tmp_path / "first", Console(stderr=True)))
    rows = [
        {
            "style": "openmoji",
            "caption": "aardvark",
            "keywords": "",
            "image": saved((0, 0, 90, 255), (72, 72)),
        }
    ] * 6
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), other / "a.parquet")
    # Steps so short that nothing moves.
    more = make(pictures=str(other), init_from=str(tmp_path / "first" / "tiny.safetensors"), peak_lr=1e-12)
    second = load_model(run_training(more, tmp_path / "second", Console(stderr=True)))
    known, now = first.network.config, second.network.config
    assert (now.vocabulary[: len(known.vocabulary)], now.styles) == (
        known.vocabulary,
        (*known.styles, "openmoji"),
    )
    assert "aardvark" in now.vocabulary[len(known.vocabulary) :]
    before, after = (model.network.text.words.weight for model in (first, second))
    assert len(after) > len(before)
    torch.testing.assert_close(after[: len(before)], before, atol=1e-3, rtol=0)


def test_pictures_none_of_which_can_be_read_are_refused(pictures):
    for file in pictures.glob("*.parquet"):
        rows = [row | {"image": b"no image"} for row in pq.read_table(file).to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(UsageError, match=r"none of the 12 images of .*: 12 corrupt; row 0 of"):
        read_pictures(pictures)
