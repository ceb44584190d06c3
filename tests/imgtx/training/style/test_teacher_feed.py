"""Batches of a training that learns from a teacher: functions of the step, painted once and kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imgtx.errors import UsageError
from imgtx.training.style.spec import StyleSpec, make_style_spec
from imgtx.training.style.teacher_feed import TeacherFeed, recoloured
from tests.support.small_style import Mixer, painting
from tests.support.zoo import photo

SPEC = StyleSpec("style", "tiny", "styles", steps=1, teacher="painting", batch=2, crop=64, teacher_pictures=3)


def feed(folder: Path, painter: Mixer | None = None, **changes) -> TeacherFeed:
    photos = {f"{number}.png": photo(150 + number, 170) for number in range(3)}
    styles = {f"{seed}.png": painting(seed, 160, 140) for seed in range(3)}
    return TeacherFeed(replace(SPEC, **changes), photos, styles, painter or Mixer(), folder)


def test_a_batch_is_a_function_of_the_step(tmp_path):
    one, same, other = (
        feed(tmp_path / "a").batch(5),
        feed(tmp_path / "b").batch(5),
        feed(tmp_path / "a").batch(6),
    )
    for name in ("contents", "painted", "styles", "numbers"):
        assert np.array_equal(getattr(one, name), getattr(same, name))
    assert not np.array_equal(one.contents, other.contents)
    assert one.contents.shape == one.painted.shape == (2, 64, 64, 3)
    assert one.styles.shape == (2, 256, 256, 3)
    assert one.numbers.shape == (2, 100)
    assert one.numbers.dtype == np.float32


def test_a_crop_of_a_painted_picture_is_that_of_its_content(tmp_path):
    batch = feed(tmp_path, Mixer(share=0.0)).batch(0)
    # Enlarged and reduced again.
    assert np.abs(batch.contents.astype(int) - batch.painted).mean() < 3


def test_pictures_are_painted_once_and_kept(tmp_path):
    teacher = Mixer()
    for step in range(6):
        feed(tmp_path, teacher).batch(step)
    assert teacher.painted == 3
    assert sorted(path.name for path in (tmp_path / "teacher").iterdir()) == [
        "000000.npz", "000001.npz", "000002.npz", "scale.npz",
    ]  # fmt: skip


def test_the_style_encoder_learns_from_styles_alone(tmp_path):
    teacher = Mixer()
    batch = feed(tmp_path, teacher, teacher="styles").batch(1)
    assert (teacher.painted, len(batch.contents)) == (0, 0)
    assert (len(batch.styles), len(batch.numbers)) == (2, 2)


def test_numbers_are_scaled_by_the_styles(tmp_path):
    source = feed(tmp_path)
    numbers = source.numbers([painting(seed, 256, 256) for seed in range(12)])
    assert np.abs(numbers).max() <= 6
    assert 0.2 < numbers.std() < 5


def test_colours_of_half_of_the_styles_stay():
    piece = painting(1, 64, 64)
    same = [np.array_equal(recoloured(piece, np.random.default_rng(seed)), piece) for seed in range(200)]
    assert 0.4 < np.mean(same) < 0.65


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": "magenta"}, "teacher = 'magenta': must be painting, styles or both"),
        ({"crop": 100}, "crop = 100: with a teacher it must be a multiple of the model's 32 px"),
        ({"crop": 256}, "and 224 at most"),
        ({"style_side": 128}, "style_side = 128: with a teacher it must be 256"),
        ({"teacher_pictures": 2}, "teacher_pictures = 2: must be batch = 4 or more"),
        ({"model": {"code": 8}}, "code = 8: with a teacher it must be 100"),
        ({"crop": 96, "loss_weights": {"sliced": 1.0}}, "crop = 96: must be more than 128 where content"),
        ({"loss_weights": {"identity": 1.0}}, "identity"),
    ],
)
def test_a_wrong_spec_ends_in_one_line(tmp_path, changes, said):
    values = {
        "objective": "style",
        "name": "tiny",
        "styles": str(tmp_path),
        "steps": 1,
        "teacher": "both",
        "crop": 192,
    }
    with pytest.raises(UsageError, match=said) as error:
        make_style_spec(values | changes, tmp_path / "spec.toml")
    assert "\n" not in str(error.value)
