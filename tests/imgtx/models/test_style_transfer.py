"""The style transfer network: shapes, what a style changes, tiles, and the contract around it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from imgtx.errors import ModelError, UsageError
from imgtx.models.info import ModelInfo
from imgtx.models.style_config import StyleConfig
from imgtx.models.style_model import Look, StyleModel, blended, fit_style, style_sides
from imgtx.models.style_transfer import Statistics, StyleTransfer
from imgtx.models.weight_file import STYLE_TASK, file_digest, read_info
from imgtx.models.weights import load_model, save_weights

TINY = {
    "dim": 16, "style_dim": 16, "heads": 2, "window": 4, "patch": 4, "encoder_blocks": 1, "decoder_blocks": 2,
    "mix_blocks": 1, "style_blocks": 1, "merged_blocks": 1, "detail_channels": 4, "half_channels": 8, "ffn_ratio": 1.0,
    "code": 8,
}  # fmt: skip
STYLE_SIDE = 64


@pytest.fixture
def network() -> StyleTransfer:
    """A tiny float64 network that has left its start: every modulation depends on the code."""
    torch.manual_seed(0)
    network = StyleTransfer(StyleConfig(**TINY)).double().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "linear.weight" in name or "position_bias" in name:
                parameter.normal_(std=0.2)
    return network


def pictures(count: int, height: int, width: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, 3, height, width), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_any_multiple_of_the_window_goes_through(patch):
    network = StyleTransfer(StyleConfig(**TINY | {"patch": patch, "noise_channels": patch**2})).double()
    state = network.encode_style(pictures(1, STYLE_SIDE, 2 * STYLE_SIDE))
    content = pictures(2, 4 * patch, 12 * patch)
    assert network.config.multiple == 4 * patch
    assert network(content, state).shape == content.shape


def test_the_memory_has_a_token_for_each_square_of_16_pixels(network):
    state = network.encode_style(pictures(3, STYLE_SIDE, 2 * STYLE_SIDE))
    assert [key.shape for key in state.keys] == [(3, 2, 4 * 8, 8)] * 2
    assert state.code.shape == (3, 8)


def test_each_image_gets_its_own_style(network):
    styles, content = pictures(2, STYLE_SIDE, STYLE_SIDE), pictures(4, 32, 32, seed=2)
    together = network(content, network.encode_style(styles).repeat(2))
    for style in range(2):
        alone = network(content[2 * style : 2 * style + 2], network.encode_style(styles[style : style + 1]))
        torch.testing.assert_close(together[2 * style : 2 * style + 2], alone)
    assert (together[0] - network(content[:1], network.encode_style(styles[1:]))).abs().max() > 1e-3


def test_tiles_with_context_equal_the_whole(network):
    """Nothing looks further than the windows and convolutions of the network reach."""
    reach = 96
    content, state = pictures(1, 16, 320), network.encode_style(pictures(1, STYLE_SIDE, STYLE_SIDE))
    of_whole = Statistics()
    with torch.no_grad():
        whole = network(content, state, of_whole)
        tile = network(content[..., :240], state, Statistics(of_whole.measured))
    torch.testing.assert_close(tile[..., : 240 - reach], whole[..., : 240 - reach])
    assert not torch.equal(tile[..., 238:], whole[..., 238:240])


def test_pieces_together_have_the_statistics_of_all_their_pixels():
    x, together = pictures(6, 9, 7), Statistics(together=True)
    mean, deviation = together.of(x)
    torch.testing.assert_close(mean.flatten(), x.mean((0, 2, 3)))
    torch.testing.assert_close(deviation.flatten(), (x.var((0, 2, 3), correction=0) + 1e-5).sqrt())
    assert mean.shape == (1, 3, 1, 1)


def test_the_style_and_not_the_content_decides_contrast_and_brightness(network):
    content, state = pictures(1, 32, 32), network.encode_style(pictures(1, STYLE_SIDE, STYLE_SIDE))
    with torch.no_grad():
        bright, faint = (network(x, state).logit() for x in (content, 0.2 + content / 3))
    for measure in (torch.mean, torch.std):
        torch.testing.assert_close(measure(bright, (2, 3)), measure(faint, (2, 3)), rtol=0.02, atol=0.02)


def test_strips_equal_one_piece(network, monkeypatch):
    content, state = pictures(1, 256, 32), network.encode_style(pictures(1, STYLE_SIDE, STYLE_SIDE))
    whole = network(content, state)  # with gradients: in one piece
    monkeypatch.setattr("imgtx.models.transformer.STRIP_PIXELS", 32 * 16)
    monkeypatch.setattr("imgtx.models.layers.STRIP_TOKENS", 8 * 4)
    with torch.no_grad():
        torch.testing.assert_close(network(content, state), whole.detach())


def test_every_parameter_is_used(network):
    state = network.encode_style(pictures(1, STYLE_SIDE, STYLE_SIDE))
    noise = torch.randn(1, 16, 8, 8, dtype=torch.float64)
    network(pictures(1, 32, 32), state, noise=noise).square().sum().backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not unused


def test_an_untrained_code_tells_colours_apart():
    torch.manual_seed(0)
    encoder = StyleTransfer(StyleConfig()).style
    dark, bright = torch.rand(1, 3, 128, 128) * 0.3, 1 - torch.rand(1, 3, 128, 128) * 0.3
    with torch.no_grad():
        (_, one), (_, other) = encoder(dark), encoder(bright)
    assert (one - other).abs().mean() > 0.3


def test_the_default_fits_into_6_megabytes():
    network = StyleTransfer(StyleConfig())
    assert 2 * sum(parameter.numel() for parameter in network.parameters()) < 6e6


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"patch": 3}, "even number"),
        ({"noise_channels": 4}, "multiple of 16"),
        ({"dim": 30, "heads": 4}, "does not divide"),
        ({"decoder_blocks": -1}, "decoder_blocks = -1"),
        ({"ffn_ratio": 0}, "greater than 0"),
    ],
)
def test_shapes_that_cannot_be(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        StyleConfig(**changes)
    with pytest.raises(ModelError, match=complaint):
        StyleConfig.from_dict(changes)


class TestModel:
    @pytest.fixture
    def model(self, network) -> StyleModel:
        info = ModelInfo(name="tiny", task=STYLE_TASK, scale=1, multiple=network.config.multiple, halo=32)
        return StyleModel(network.float(), info, digest="0" * 64)

    def test_comes_out_of_its_weight_file(self, model, tmp_path):
        path = tmp_path / "tiny.safetensors"
        save_weights(path, model.network, model.info)
        loaded = load_model(path)
        assert isinstance(loaded, StyleModel)
        assert (loaded.info, loaded.digest) == (model.info, file_digest(path)) == read_info(path)
        style, batch = np.full((64, 64, 3), 128, np.uint8), torch.rand(1, 3, 32, 32)
        expected = model(batch, model.prepare({"style": style}))
        assert torch.equal(loaded(batch, loaded.prepare({"style": style})), expected)

    def test_a_file_of_another_task_is_refused(self, model, tmp_path):
        path = tmp_path / "tiny.safetensors"
        save_weights(path, model.network, replace(model.info, task="restoration"))
        with pytest.raises(ModelError, match="unknown fields"):
            load_model(path)

    def test_keeps_the_contract(self, model):
        style = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
        state = model.prepare({"style": style, "style_size": 64})
        output = model(torch.rand(2, 3, 32, 48), state)
        assert output.shape == (2, 3, 32, 48)
        assert 0 <= output.min() <= output.max() <= 1
        assert not any(memory.code.requires_grad for memory in state.memories.values())

    @pytest.mark.parametrize("conditions", [None, {}, {"prompt": "a cat"}])
    def test_asks_for_a_style_picture(self, model, conditions):
        with pytest.raises(UsageError, match="tiny needs a style picture"):
            model(torch.rand(1, 3, 32, 32), model.prepare(conditions))

    def test_refuses_a_tiny_style_picture(self, model):
        with pytest.raises(UsageError, match="100 x 63: expected 64 pixels"):
            model(torch.rand(1, 3, 32, 32), model.prepare({"style": np.zeros((63, 100, 3), np.uint8)}))

    def test_images_of_one_batch_may_differ_in_style_and_strength(self, model):
        rng = np.random.default_rng(0)
        pictures = {
            name: rng.integers(0, 256, (70, side, 3), dtype=np.uint8)
            for name, side in (("a", 80), ("b", 300))
        }
        batch, state = torch.rand(5, 3, 32, 32), model.prepare({"styles": pictures, "strength": 0.5})
        rows = [
            {"style": "a"},
            {"style": "b"},
            {"style": "a", "strength": 0.0},
            {"style": "b", "preserve_color": True},
            {"style": "a"},
        ]
        together = model(batch, state, rows)
        for image, row, output in zip(batch.split(1), rows, together.split(1), strict=True):
            torch.testing.assert_close(
                model(image, model.prepare({"styles": pictures, "strength": 0.5}), [row]), output
            )
        assert torch.equal(together[2], batch[2])

    def test_each_style_is_looked_at_once(self, model):
        class Counting(dict):
            asked = 0

            def get(self, name):
                self.asked += 1
                return super().get(name)

        style = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
        pictures = Counting(a=style, b=style[::-1])
        state = model.prepare({"styles": pictures})
        for _ in range(3):
            model(torch.rand(2, 3, 32, 32), state, [{"style": "a"}, {"style": "b"}])
        assert pictures.asked == 2


class TestStrengthAndColour:
    content, styled = (torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]

    def test_no_strength_is_the_content_and_more_is_continuous(self):
        looks = [blended(self.content, self.styled, Look(strength=s / 100)) for s in range(101)]
        torch.testing.assert_close(looks[0], self.content, rtol=0, atol=0)
        torch.testing.assert_close(looks[100], self.styled)
        assert max((one - other).abs().max() for one, other in pairwise(looks)) < 0.011

    def test_preserved_colours_have_the_light_of_the_style_and_the_hue_of_the_content(self):
        made = blended(self.content, self.styled, Look(preserve_color=True))
        light = (made * self.weights).sum(1, keepdim=True)
        torch.testing.assert_close(light, (self.styled * self.weights).sum(1, keepdim=True))
        wanted = self.content - (self.content * self.weights).sum(1, keepdim=True)
        ratio = (made - light) / wanted
        # Less chroma where the colour does not exist, but never another.
        torch.testing.assert_close(ratio[:, 0], ratio[:, 1], rtol=1e-2, atol=1e-2)
        assert ratio.max() < 1.001
        assert 0 <= made.min() <= made.max() <= 1

    def test_grey_stays_grey(self):
        grey = self.content[:, :1].expand(-1, 3, -1, -1)
        made = blended(grey, self.styled, Look(preserve_color=True))
        torch.testing.assert_close(made[:, 0], made[:, 2])


@pytest.mark.parametrize(
    ("short", "long", "size", "expected"),
    [
        (400, 400, 256, (256, 256)),
        (400, 600, 256, (256, 384)),
        (400, 600, 512, (512, 512)),
        (100, 5000, 256, (256, 1024)),
        (64, 64, 10, (128, 128)),
        (400, 400, 2000, (512, 512)),
    ],
)
def test_sides_of_the_style_picture(short, long, size, expected):
    assert style_sides(short, long, size, 128) == expected


def test_a_style_picture_keeps_its_proportions():
    """A circle stays a circle, in the middle."""
    y, x = np.mgrid[:300, :500]
    disc = ((y - 150) ** 2 + (x - 250) ** 2 < 90**2)[..., None] * np.full(3, 255, np.uint8)
    fitted = fit_style(disc, 256, 128)[0, 0] > 0.5
    assert fitted.shape == (256, 384)
    rows, columns = fitted.any(1).sum(), fitted.any(0).sum()
    assert abs(rows - columns) <= 1
    assert abs(float(torch.nonzero(fitted)[:, 1].float().mean()) - 191.5) < 1
