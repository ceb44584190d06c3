"""The network as a whole: shapes, initial output, receptive field and parameter names."""

import pytest
import torch
import torch.nn.functional as F

from imgtx.models import transformer as model_file
from imgtx.models.config import ModelConfig
from imgtx.models.layers import WindowAttention
from imgtx.models.transformer import EncoderDecoder

TINY = {
    "dim": 16, "heads": 1, "window": 4, "patch": 2, "encoder_blocks": 1, "decoder_blocks": 1,
    "detail_channels": 4, "detail_blocks": 1, "ffn_ratio": 1.0,
}  # fmt: skip


def trained(**changes) -> EncoderDecoder:
    """Return a tiny float64 network whose head is not zero."""
    torch.manual_seed(0)
    network = EncoderDecoder(ModelConfig(**TINY | changes)).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("head") or "position_bias" in name:
                parameter.normal_(std=0.3)
    return network


def image(height: int, width: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(
        (1, 3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 40), (24, 16)])
def test_any_multiple_of_the_window_is_accepted(scale, height, width):
    network = trained(scale=scale)
    assert network.config.multiple == 8
    assert network(image(height, width)).shape == (1, 3, scale * height, scale * width)


@pytest.mark.parametrize("scale", [2, 3])
def test_an_untrained_model_is_bicubic_interpolation(scale):
    torch.manual_seed(0)
    network = EncoderDecoder(ModelConfig(**TINY, scale=scale)).double()
    x = image(16, 24)
    bicubic = F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
    assert torch.equal(network(x), bicubic)
    assert not torch.allclose(trained(scale=scale)(x), bicubic, atol=0.01)


def test_patches_round_trip():
    network = trained(patch=4)
    x = torch.arange(2 * 3 * 8 * 12, dtype=torch.float64).reshape(2, 3, 8, 12)
    patches = network.to_patches(x)
    assert patches.shape == (2, 2, 3, 48)
    assert torch.equal(patches[1, 1, 2], x[1, :, 4:8, 8:12].flatten())
    assert torch.equal(network.from_patches(patches), x)


def test_the_gradient_reaches_every_parameter():
    network = trained(encoder_blocks=2, decoder_blocks=2)
    (network(image(16, 16)) ** 2).mean().backward()
    untouched = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-12]
    assert untouched == []


def reach(config: ModelConfig) -> int:
    """Return the receptive field's radius in input pixels: a window per attention, a pixel per convolution."""
    windows = config.encoder_blocks + 2 * config.decoder_blocks
    return windows * config.multiple + 2 + 2 * config.detail_blocks + 1 + config.patch


def changed(network: EncoderDecoder, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Return (H, W) bool in input pixels: where the output differs."""
    scale = network.config.scale
    with torch.no_grad():
        difference = (network(after) - network(before)).abs().amax((0, 1))
    return F.max_pool2d(difference[None], scale)[0] > 1e-12


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, -1), (-1, 0), (-1, -1), (0, 37), (60, -1)])
def test_nothing_wraps_around_the_border(row, column):
    network = trained(encoder_blocks=2)
    size = 88
    far = reach(network.config)
    # Else the far border is within reach, and the test shows nothing.
    assert far < size - far
    before = image(size, size)
    after = before.clone()
    after[:, :, row, column] += 0.5
    where = changed(network, before, after)
    y, x = row % size, column % size
    assert where[y, x]
    rows, columns = torch.nonzero(where, as_tuple=True)
    assert (rows - y).abs().max() <= far
    assert (columns - x).abs().max() <= far


def test_shifting_by_one_window_shifts_the_output():
    network = trained(encoder_blocks=2)
    pitch, scale, margin = network.config.multiple, network.config.scale, reach(network.config)
    x = image(72, 72)
    with torch.no_grad():
        whole, moved = network(x), network(x[:, :, pitch:, pitch:])
    near = scale * margin
    rest = whole[:, :, scale * pitch :, scale * pitch :]
    torch.testing.assert_close(moved[:, :, near:, near:], rest[:, :, near:, near:], rtol=1e-9, atol=1e-9)


def test_inference_in_rows_changes_nothing(monkeypatch):
    network, x = trained(detail_blocks=2), image(48, 16)
    whole = network(x).detach()
    # Strips of 16 rows, the smallest.
    monkeypatch.setattr(model_file, "STRIP_PIXELS", 1)
    heights: list[int] = []
    for block in network.refine:
        block.body.register_forward_hook(lambda module, inputs, output: heights.append(output.shape[2]))
    with torch.no_grad():
        torch.testing.assert_close(network(x), whole, rtol=1e-12, atol=1e-12)
    assert heights == [18, 20, 18] * 2


def test_position_bias_starts_at_zero():
    biases = [
        m.position_bias
        for m in EncoderDecoder(ModelConfig(**TINY)).modules()
        if isinstance(m, WindowAttention)
    ]
    assert len(biases) == 3
    assert not any(bias.any() for bias in biases)


def test_parameter_names_are_frozen():
    """Weight files contain these names: after a change, packaged and users' files must be converted."""
    attention = (
        "key_value.bias",
        "key_value.weight",
        "out.bias",
        "out.weight",
        "position_bias",
        "query.bias",
        "query.weight",
    )
    feed = ("0.bias", "0.weight", "2.bias", "2.weight")
    steps = {"attend": attention, "cross": attention, "feed": feed}

    def block(name: str, *kinds: str) -> set[str]:
        inner = {f"{name}.{kind}.sublayer.{leaf}" for kind in kinds for leaf in steps[kind]}
        return inner | {f"{name}.{kind}.norm.{leaf}" for kind in kinds for leaf in ("weight", "bias")}

    outer = (
        "stem.0",
        "stem.2",
        "embed",
        "embed_query",
        "unembed",
        "refine.0.body.0",
        "refine.0.body.2",
        "head",
    )
    expected = {f"{name}.{leaf}" for name in outer for leaf in ("weight", "bias")}
    expected |= block("encoder.0", "attend", "feed") | block("decoder.0", "attend", "cross", "feed")
    assert set(EncoderDecoder(ModelConfig(**TINY)).state_dict()) == expected
