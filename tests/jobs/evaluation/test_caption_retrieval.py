"""Recognition among 100 and memorised pictures, on made-up collections and models that draw well, badly or by heart."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from imgtx.errors import UsageError
from imgtx.training.text_to_image.captioned import Subject, held_out
from jobs.evaluation import caption_retrieval
from jobs.evaluation.caption_retrieval import (
    REAL,
    SHUFFLED,
    Memory,
    OnWhite,
    caption_rows,
    choose_candidates,
    find_captioned,
    rotated,
)
from jobs.evaluation.datasets import Dataset

STYLES = ("noto", "openmoji", "twemoji")
CANDIDATES = 8
SEEN, PAIR = "seen in this style", "seen in other styles only"


def pattern(concept: str) -> np.ndarray:
    """Return what a concept looks like: (8, 8, 3) float."""
    return np.random.default_rng(int(concept.split()[-1])).uniform(40, 215, (8, 8, 3))


def drawn(concept: str, style: str, seed: int = 0) -> np.ndarray:
    """Draw a concept in a style, which is a tint, with a little noise."""
    rng = np.random.default_rng(seed + 1000 * STYLES.index(style))
    tint = np.eye(3)[STYLES.index(style)] * 30
    coarse = pattern(concept) + tint + rng.normal(0, 8, (8, 8, 3))
    return coarse.clip(0, 255).astype(np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.fixture
def data() -> OnWhite:
    subjects = [Subject(f"thing {n}", style) for n in range(400) for style in STYLES]
    return OnWhite(np.stack([drawn(s.caption, s.style, n) for n, s in enumerate(subjects)]), tuple(subjects))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, data: OnWhite):
    monkeypatch.setattr(caption_retrieval, "CANDIDATES", CANDIDATES)
    monkeypatch.setattr(caption_retrieval, "read_captioned", lambda folder: data)
    monkeypatch.setattr(
        caption_retrieval,
        "mobilenet_features",
        lambda: lambda p: p[:, ::8, ::8].reshape(len(p), -1).astype(float),
    )


def rows_of(paint: Callable[[str, str, int], np.ndarray]) -> dict[tuple[str, str], dict[str, float]]:
    class Painter:
        info = SimpleNamespace(name="painter")

        def __call__(self, prompt: str, *, seed: int) -> np.ndarray:
            concept, _, rest = prompt.partition(" in ")
            return paint(concept, rest.removesuffix(" style"), seed)

    rows = caption_rows(Painter(), Dataset("emoji", (Path("emoji/a.parquet"),)))
    return {(row.condition, row.method): row.means for row in rows}


def test_candidates_are_held_out_and_each_has_a_counterpart_in_another_style(data: OnWhite):
    training = data.where(lambda subject: not held_out(subject))
    examples, real = ([data.subjects[at] for at in places] for places in choose_candidates(data, training))
    assert {held_out(subject) for subject in examples} == {"pair"}
    assert {held_out(subject) for subject in real} == {""}
    assert len({subject.concept for subject in examples}) == CANDIDATES
    for example, other in zip(examples, real, strict=True):
        assert example.concept == other.concept
        assert example.style != other.style


def test_prompts_of_others_are_of_the_same_style_where_there_is_one():
    assert rotated(["a", "b", "a", "b", "a"]) == [2, 3, 4, 1, 0]
    assert rotated(["a", "b", "b"]) == [1, 2, 1]


def test_a_model_that_draws_what_is_asked_is_recognised_and_others_are_not():
    right = rows_of(lambda concept, style, seed: drawn(concept, style, seed + 7))
    for condition in (SEEN, PAIR):
        assert right[condition, "painter"]["found %"] == 100
        assert right[condition, REAL]["found %"] == 100
        assert right[condition, SHUFFLED]["found %"] == 0
    wrong = rows_of(lambda concept, style, seed: drawn(f"thing {500 + seed}", style))
    assert wrong[PAIR, "painter"]["found %"] < 50


def test_pictures_by_heart_are_counted_and_real_ones_are_not(data: OnWhite):
    learnt = {s.concept: p for s, p in zip(data.subjects, data.pictures, strict=True) if not held_out(s)}
    by_heart = rows_of(lambda concept, style, seed: learnt[concept])
    assert by_heart[PAIR, "painter"]["memorised %"] == 100
    assert by_heart[SEEN, REAL]["memorised %"] < 100
    training = data.where(lambda subject: not held_out(subject))
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    assert Memory(data, training).share(noise) == 0
    assert Memory(data, training).share(data.pictures[training[:4]]) == 1


def test_too_few_pictures_and_folders_without_any_are_one_line(data: OnWhite, tmp_path: Path):
    with pytest.raises(UsageError, match=r"0 concepts that are held out in one style .*expected 8 or more"):
        choose_candidates(OnWhite(data.pictures[:3], data.subjects[:3]), ())
    with pytest.raises(UsageError, match=r"has no .parquet file"):
        find_captioned([tmp_path])
    with pytest.raises(UsageError, match="was given no dataset"):
        find_captioned([])
