"""Scenes and their captions: repeatable, true, and without what is held out."""

import numpy as np

from imgtx.models.text_to_image_tokenizer import words_of
from imgtx.training.scenes import held_out
from imgtx.training.scenes.captions import caption, caption_words, plain_caption, random_description
from imgtx.training.scenes.description import COLOURS, SHAPES, Description, Group, far_apart
from imgtx.training.scenes.drawing import draw, place


def test_the_same_generator_gives_the_same_scene():
    def once():
        rng = np.random.default_rng(4)
        description = random_description(rng)
        return description, caption(description, rng), draw(description, rng).tobytes()

    assert once() == once()


def test_training_never_draws_what_is_held_out():
    rng = np.random.default_rng(0)
    for _ in range(1500):
        description = random_description(rng)
        pairs = {(group.colour, group.shape) for group in description.groups}
        assert not pairs & held_out.PAIRS
        assert not held_out.held_out_of(description)


def test_what_is_held_out_leaves_every_colour_and_shape_to_training():
    assert {shape for _, shape in held_out.PAIRS} == set(SHAPES)
    assert {colour for colour, _ in held_out.PAIRS} == set(COLOURS)
    for colour in COLOURS:
        assert sum(pair[0] == colour for pair in held_out.PAIRS) <= 2


def test_a_held_out_relation_is_held_out_told_from_either_side():
    star, circle = Group("red", "star"), Group("blue", "circle")
    assert "relation" in held_out.held_out_of(Description((star, circle), relation="above"))
    assert "relation" in held_out.held_out_of(Description((circle, star), relation="below"))
    assert "relation" not in held_out.held_out_of(Description((circle, star), relation="above"))


def test_captions_say_all_and_are_made_of_known_words():
    rng, known = np.random.default_rng(5), caption_words()
    for _ in range(500):
        description = random_description(rng)
        for text in (caption(description, rng), plain_caption(description)):
            assert set(words_of(text)) <= known, text
            assert ("background" in text or " on " in text) or not description.background, text


def test_plain_captions():
    two = Description((Group("orange", "star"), Group("blue", "cross", size="small")), relation="left of")
    assert plain_caption(two) == "an orange star to the left of a small blue cross"
    several = Description((Group("red", "cross", 3),), background="orange")
    assert plain_caption(several) == "three red crosses on an orange background"


def test_shapes_keep_apart_and_inside():
    rng = np.random.default_rng(6)
    for _ in range(100):
        shapes = place(random_description(rng), rng)
        for i, shape in enumerate(shapes):
            assert shape.radius < shape.x < 64 - shape.radius
            assert shape.radius < shape.y < 64 - shape.radius
            for other in shapes[:i]:
                apart = max(abs(shape.x - other.x), abs(shape.y - other.y))
                assert apart >= shape.radius + other.radius + 3


def test_backgrounds_stand_out():
    assert not far_apart("red", "red")
    assert far_apart("red", "white")
