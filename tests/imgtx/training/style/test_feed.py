"""Batches of a style transfer training: functions of the step, with rare palettes drawn as often as common ones."""

import numpy as np
import pytest

from imgtx.errors import UsageError
from imgtx.training.style.feed import StyleFeed, chances
from imgtx.training.style.spec import StyleSpec, make_style_spec
from tests.support.small_style import painting
from tests.support.zoo import photo

SPEC = StyleSpec("style", "tiny", "styles", steps=1, style_side=128, pieces=4)


def feed() -> StyleFeed:
    photos = {f"{number}.png": photo(150 + number, 170) for number in range(3)}
    return StyleFeed(SPEC, photos, {f"{seed}.png": painting(seed, 160, 140) for seed in range(3)})


def test_a_batch_is_a_function_of_the_step():
    one, same, other = feed().batch(5), feed().batch(5), feed().batch(6)
    assert np.array_equal(one.contents, same.contents)
    assert one.pieces == same.pieces
    assert not np.array_equal(one.contents, other.contents)
    assert one.contents.shape == (4, 128, 128, 3)
    assert one.styles.shape == (2, 128, 128, 3)
    assert len(one.keys) == 4


def test_a_piece_is_always_the_same_and_belongs_to_its_style():
    source = feed()
    assert np.array_equal(source.piece(5), feed().piece(5))
    assert not np.array_equal(source.piece(5), source.piece(6))


def test_now_and_then_a_content_is_a_piece_of_its_style():
    batch = feed().batch(4)
    assert batch.own
    assert np.array_equal(batch.contents[0], batch.styles[0])
    assert not feed().batch(5).own


def test_a_rare_palette_is_drawn_more_often():
    dark = [np.full((64, 64, 3), 30 + number, np.uint8) for number in range(6)]
    bright = np.zeros((64, 64, 3), np.uint8) + np.array([250, 200, 20], np.uint8)
    found = chances([*dark, bright])
    assert found.sum() == pytest.approx(1)
    assert found[-1] > 3 * found[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": 96}, "crop = 96: must be a multiple of 128 px"),
        ({"per_style": 3}, "batch = 4 is not a multiple of per_style = 3"),
        ({"grey": 1.5}, "grey = 1.5: must be a share, 0 to 1"),
        ({"steps": 0}, "one of them must be more than 0"),
        ({"train": "nowhere"}, "train = 'nowhere' is not a folder"),
        ({"styles": "nowhere"}, "styles = 'nowhere' is not there"),
        ({"model": {"heads": 3}}, "does not divide"),
        ({"loss_weights": {"colour": 1.0}}, "colour"),
        ({"pieces": 0}, "pieces = 0: must be 1 or more"),
    ],
)
def test_a_wrong_spec_ends_in_one_line(tmp_path, changes, said):
    values = {"objective": "style", "name": "tiny", "styles": str(tmp_path), "steps": 1} | changes
    with pytest.raises(UsageError, match=said) as error:
        make_style_spec(values, tmp_path / "spec.toml")
    assert "\n" not in str(error.value)
