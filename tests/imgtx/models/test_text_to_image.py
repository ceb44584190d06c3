"""The text-to-image network: prompts as tokens, pictures that depend on nothing but their row, the weight file."""

import numpy as np
import pytest
import torch

from imgtx.errors import ModelError, UsageError
from imgtx.models.info import ModelInfo
from imgtx.models.text_to_image import TextToImage
from imgtx.models.text_to_image_config import TextToImageConfig
from imgtx.models.text_to_image_model import TextToImageModel
from imgtx.models.text_to_image_sampler import dpm_solver, heun, noise_of
from imgtx.models.text_to_image_tokenizer import FIRST_LETTER, FIRST_WORD, START, UNKNOWN, Tokenizer, words_of
from imgtx.models.weight_file import TEXT_TASK, read_info
from imgtx.models.weights import load_model, save_weights

WORDS = ("a", "blue", "circle", "in", "noto", "red", "style")
TINY = {
    "side": 16, "patch": 4, "dim": 16, "heads": 2, "blocks": 2, "text_blocks": 1, "max_tokens": 10,
    "vocabulary": WORDS, "styles": ("noto",),
}  # fmt: skip
INFO = TextToImageConfig(**TINY).completed(ModelInfo("tiny", TEXT_TASK, 1, 16, 0))


@pytest.fixture
def network() -> TextToImage:
    """A tiny network that has left its start: its output depends on everything."""
    torch.manual_seed(0)
    network = TextToImage(TextToImageConfig(**TINY)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "modulation" in name or name.startswith("head") or "position_bias" in name:
                parameter.normal_(std=0.2)
    return network


@pytest.fixture
def model(network) -> TextToImageModel:
    return TextToImageModel(network, INFO, "digest")


def difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


def test_known_words_are_one_token_and_others_are_spelled():
    tokens = Tokenizer(WORDS, 10)("A RED, rèd yo円!")
    assert tokens.numbers == (
        START,
        FIRST_WORD,
        FIRST_WORD + 5,
        FIRST_WORD + 5,
        FIRST_LETTER + 24,
        FIRST_LETTER + 14,
        UNKNOWN,
    )
    assert (tokens.cut, tokens.spelled) == (0, 1)


def test_words_that_mean_nothing_to_it_are_named_once(model):
    assert model.words == WORDS
    row = {"prompt": "A red Eiffel tower, 3 b tower", "negative": "blue Paris"}
    assert model.unknown_words(row) == ["eiffel", "tower", "paris"]
    assert model.unknown_words({"prompt": "a red circle"}) == []


def test_a_long_prompt_is_cut_and_says_by_how_much_but_its_style_is_not():
    tokens = Tokenizer(WORDS, 10)("red " * 20, "noto")
    assert len(tokens.numbers) == 10
    assert tokens.cut == 20 - (10 - 1 - 3)
    assert tokens.numbers[-3:] == (FIRST_WORD + 3, FIRST_WORD + 4, FIRST_WORD + 6)


def test_an_empty_prompt_has_the_first_token():
    assert Tokenizer(WORDS, 10)("  ... ").numbers == (START,)


@pytest.mark.parametrize(
    ("text", "words"), [("Crème brûlée", ["creme", "brulee"]), ("dog's_ear", ["dogs", "ear"])]
)
def test_words(text, words):
    assert words_of(text) == words


def test_a_picture_is_the_same_in_any_batch(model):
    prompts, seeds = ["a red circle", "blue", "", "a blue circle in noto style"], [5, 6, 7, 2**63 - 1]
    together = model.sample(prompts, seeds, steps=4)
    assert together.shape == (4, 16, 16, 3)
    for i in (3, 0, 2, 1):
        assert difference(model.sample([prompts[i]], [seeds[i]], steps=4)[0], together[i]) <= 1


def test_prompt_seed_guidance_negative_and_style_count(model):
    def sample(**changes):
        arguments = {"prompts": ["red"], "seeds": [1], "steps": 4} | changes
        return model.sample(arguments.pop("prompts"), arguments.pop("seeds"), **arguments)[0]

    usual = sample()
    for change in (
        {"prompts": ["blue"]}, {"seeds": [2]}, {"steps": 5}, {"guidance": 1.0}, {"negative": "blue"}, {"style": "noto"},
    ):  # fmt: skip
        assert difference(sample(**change), usual) > 0, change
    assert difference(sample(prompts=["red in noto style"]), sample(style="noto")) == 0


def test_rows_of_conditions_give_the_same_pictures(model):
    rows = [
        {"prompt": "red", "seed": 3, "steps": 3},
        {"prompt": "blue", "seed": 4, "steps": 2, "guidance": 2.0, "negative": "a", "style": "noto"},
    ]
    drawn = model(torch.zeros(2, 3, 16, 16), None, rows)
    alone = model.sample(["blue"], [4], steps=2, guidance=2.0, negative="a", style="noto")[0]
    levels = (drawn[1].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert difference(levels, alone) <= 1
    assert drawn.shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": [1, 2]}, "a seed for each prompt"),
        ({"seeds": [-1]}, "expected 0 to"),
        ({"steps": 0}, "expected 1 to"),
        ({"size": (32, 16)}, "draws 16 x 16"),
        ({"style": "cubist"}, "expected one of noto"),
        ({"guidance": [1.0, 2.0]}, "expected one for each"),
    ],
)
def test_what_cannot_be_drawn(model, arguments, message):
    given = {"prompts": ["red"], "seeds": [1]} | arguments
    with pytest.raises(UsageError, match=message):
        model.sample(given.pop("prompts"), given.pop("seeds"), **given)


def test_both_solvers_reach_the_picture():
    picture = torch.rand(1, 3, 8, 8) * 2 - 1

    def predict(z, time):
        # The mean of pictures around `picture` with a deviation of 0.1, given z: not the same at every time.
        spread = 0.01
        weight = time * spread / (time**2 * spread + (1 - time) ** 2)
        return picture + weight * (z - time * picture)

    exact = picture + 0.1 * noise_of([1], 8)
    assert (heun(predict, noise_of([1], 8), 200) - exact).abs().max() < 5e-3
    few = [(dpm_solver(predict, noise_of([1], 8), steps) - exact).abs().max() for steps in (8, 16, 64)]
    assert few[0] > few[1] > few[2]
    assert few[1] < 0.25


def test_half_the_bytes_and_nearly_the_same_pictures(network, tmp_path):
    save_weights(tmp_path / "full.safetensors", network, INFO)
    save_weights(tmp_path / "half.safetensors", network, INFO, half=True)
    full, half = (load_model(tmp_path / f"{name}.safetensors") for name in ("full", "half"))
    assert isinstance(half, TextToImageModel)
    assert half.network.embed.weight.dtype == torch.float32
    assert half.network.config == network.config
    assert difference(full.sample(["red"], [1], steps=4), half.sample(["red"], [1], steps=4)) <= 8
    info, digest = read_info(tmp_path / "half.safetensors")
    assert (info, digest) == (INFO, half.digest)


def test_a_file_whose_info_is_of_another_size_is_refused(network, tmp_path):
    save_weights(tmp_path / "a.safetensors", network, ModelInfo("tiny", TEXT_TASK, 1, 64, 0, out_channels=1))
    with pytest.raises(ModelError, match="contradicts"):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "change", [{"patch": 5}, {"dim": 10}, {"max_tokens": 1}, {"vocabulary": (1,)}, {"side": 0}]
)
def test_a_shape_that_cannot_be(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TextToImageConfig(**TINY | change)
