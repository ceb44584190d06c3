"""Images from text as a library: same row, same picture; batches; what is refused."""

import numpy as np
import pytest

from imgtx.errors import UsageError
from imgtx.imageops.canvas import start_canvas
from imgtx.inference.generator import Generator
from imgtx.inference.tiling import plan_for_model, split
from imgtx.models.generation import request
from tests.support.prompt_models import INFO, Dots, dots
from tests.support.small_models import noise


def stacks(generator: Generator, asked: list[dict]):
    wanted = [request(row, generator.info) for row in asked]
    canvases = [(w, plan_for_model(generator.info, w.height, w.width)) for w in wanted]
    made = [(cut, split(start_canvas(None, w.height, w.width), cut)) for w, cut in canvases]
    return made, [w.conditions for w in wanted]


def test_the_same_row_gives_the_same_picture_alone_and_in_any_batch():
    generator = Generator(Dots())
    asked = [{"prompt": f"a {n}", "seed": n % 3, "width": 8 * (1 + n % 2)} for n in range(7)]
    alone = [generator(**row) for row in asked]
    for order in (range(7), reversed(range(7))):
        chosen = [asked[n] for n in order]
        made = generator.run(*stacks(generator, chosen))
        for row, pixels in zip(chosen, made, strict=True):
            np.testing.assert_array_equal(pixels, alone[asked.index(row)])
    assert not np.array_equal(generator("a", seed=1), generator("a", seed=2))


def test_batches_are_filled_across_rows_of_equal_size_and_steps():
    model = dots(batch=4)
    generator = Generator(model)
    asked = [{"prompt": "a", "seed": n, "steps": 3 + n % 2} for n in range(12)]
    generator.run(*stacks(generator, asked))
    assert model.calls == [4, 2, 4, 2]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompt": "  "}, "expected text that says"),
        ({"seed": -1}, "seed -1: expected a whole number from 0"),
        ({"seed": 2**63}, "seed 9223372036854775808: expected"),
        ({"steps": 0}, "steps 0: expected"),
        ({"guidance": float("nan")}, "guidance nan: expected"),
        ({"width": 12}, "width 12: dots makes multiples of 8"),
        ({"height": 64}, "height 64: expected a whole number from 8 to 32"),
        ({"style": "oil"}, "style 'oil': dots has ink"),
        ({"image": noise(9, 9, 3), "strength": 1.5}, "strength 1.5: expected"),
        ({"image": noise(9, 9)}, r"shape \(9, 9\)"),
    ],
)
def test_what_cannot_be_made_is_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        Generator(Dots())(**({"prompt": "a"} | asked))


def test_what_a_model_does_not_take_is_noted_or_refused():
    plain = dots(styles=(), negative=False, strength=0.0).info
    assert request({"prompt": "a", "style": "ink", "negative": "b"}, plain).notes == (
        "negative-ignored",
        "style-ignored",
    )
    with pytest.raises(UsageError, match="takes no start pictures"):
        request({"prompt": "a"}, plain, start_picture=True)


def test_what_it_does_not_understand_of_a_prompt_is_logged(caplog):
    class Reader(Dots):
        words = ("a", "red")

        def unknown_words(self, row):
            return [word for word in row["prompt"].split() if word not in self.words]

    Generator(Reader())("a red dog and cat")
    assert [record.getMessage() for record in caplog.records] == [
        "dots knows 2 words, and none of: dog, and, cat"
    ]
    caplog.clear()
    Generator(Dots())("a " * 9)
    assert "more tokens than the model reads" in caplog.text


def test_a_start_picture_is_cut_to_the_middle():
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, 24:40] = 200
    np.testing.assert_array_equal(start_canvas(wide, 16, 16), wide[:, 24:40])
    assert start_canvas(wide, 24, 32).shape == (24, 32, 3)
    made = Generator(Dots())("a", image=wide, strength=0.1, seed=1)
    assert made.shape == (INFO.generation["height"], INFO.generation["width"], 3)
    assert abs(int(made.mean()) - 200) < 40
