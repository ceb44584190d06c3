"""Attention and blocks equal their formulas in float64 NumPy, without rolled, masked or batched windows."""

from itertools import product

import numpy as np
import pytest
import torch

from imgtx.models import layers
from imgtx.models.layers import (
    DecoderBlock,
    EncoderBlock,
    FeedForward,
    Residual,
    WindowAttention,
    attention,
    partition,
    relative_positions,
    unpartition,
)

DIM, HEADS = 8, 2


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter drawn again in float64, biases and norms too: zeros and ones would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return module


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()


def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def layer_norm(norm: torch.nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + norm.eps)
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def ffn(feed: FeedForward, x: np.ndarray) -> np.ndarray:
    inner = gelu(linear(feed[0], x))
    if feed.meet is not None:
        inner = inner + gelu(depthwise(feed.meet, inner))
    return linear(feed[2], inner)


def depthwise(layer: torch.nn.Conv2d, x: np.ndarray) -> np.ndarray:
    """Convolve each channel of (H, W, D) with its own kernel, with zeros around the plane."""
    kernels, reach = layer.weight.detach().numpy()[:, 0], layer.kernel_size[0] // 2
    around = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    height, width, _ = x.shape
    total = np.zeros_like(x) + layer.bias.detach().numpy()
    for v, u in np.ndindex(kernels.shape[1:]):
        total += around[v : v + height, u : u + width] * kernels[:, v, u]
    return total


def mha(layer: WindowAttention, tokens: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Map (H, W, D), (H, W, D) to (H, W, D), query by query: each sees only the memory of its own region.

    A region is a window of the plane, cut by the image's border: nothing wraps, so nothing needs a mask.
    """
    height, width, dim = tokens.shape
    depth, window = dim // layer.heads, layer.window
    shift = window // 2 if layer.shifted else 0
    queries, both = linear(layer.query, tokens), linear(layer.key_value, memory)
    keys, values = both[..., :dim], both[..., dim:]
    biases = layer.position_bias.detach().numpy().reshape(layer.heads, 2 * window - 1, 2 * window - 1)
    regions: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in product(range(height), range(width)):
        regions.setdefault(((y - shift) // window, (x - shift) // window), []).append((y, x))
    mixed = np.empty_like(tokens)
    for (y, x), head in product(product(range(height), range(width)), range(layer.heads)):
        seen = regions[(y - shift) // window, (x - shift) // window]
        part = slice(head * depth, (head + 1) * depth)
        scores = [
            queries[y, x, part] @ keys[v, u, part] / np.sqrt(depth)
            + biases[head, y - v + window - 1, x - u + window - 1]
            for v, u in seen
        ]
        mixed[y, x, part] = softmax(np.array(scores)) @ np.stack([values[v, u, part] for v, u in seen])
    return linear(layer.out, mixed)


def step(residual: Residual, x: np.ndarray, sublayer) -> np.ndarray:
    norm = residual.norm
    if residual.order == "post":
        return layer_norm(norm, x + sublayer(x))
    if residual.order == "pre":
        return x + sublayer(layer_norm(norm, x))
    return x + layer_norm(norm, sublayer(x))


def held(module: torch.nn.Module, expected: np.ndarray, *inputs: torch.Tensor) -> None:
    with torch.no_grad():
        found = module(*inputs)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_attention_equals_its_formula():
    q, k, v, bias = drawn(5, 4), drawn(7, 4, seed=2), drawn(7, 6, seed=3), drawn(5, 7, seed=4)
    for added in (None, bias):
        expected = np.empty((5, 6))
        for i in range(5):
            scores = k.numpy() @ q[i].numpy() / np.sqrt(4)
            expected[i] = softmax(scores if added is None else scores + bias[i].numpy()) @ v.numpy()
        np.testing.assert_allclose(attention(q, k, v, added).numpy(), expected, rtol=1e-12)


def test_unpartition_inverts_partition_and_windows_are_ordered_by_row():
    tokens = drawn(2, 6, 9, 4)
    windows = partition(tokens, 3)
    assert windows.shape == (2, 2, 3, 9, 4)
    torch.testing.assert_close(windows[1, 1, 2], tokens[1, 3:6, 6:9].reshape(9, 4), rtol=0, atol=0)
    torch.testing.assert_close(unpartition(windows, 3), tokens, rtol=0, atol=0)


def test_relative_positions_number_each_offset_once():
    window = 3
    index = relative_positions(window)
    offsets: dict[int, set[tuple[int, int]]] = {}
    for a, b in product(range(window**2), repeat=2):
        offset = (a // window - b // window, a % window - b % window)
        offsets.setdefault(int(index[a, b]), set()).add(offset)
    assert sorted(offsets) == list(range((2 * window - 1) ** 2))
    assert all(len(met) == 1 for met in offsets.values())


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("window", "height", "width"), [(4, 8, 12), (3, 9, 3), (4, 4, 4), (2, 2, 6)])
def test_window_attention_sees_only_its_region(window, height, width, shifted):
    layer = randomised(WindowAttention(DIM, HEADS, window, shifted=shifted))
    tokens, memory = drawn(1, height, width, DIM), drawn(1, height, width, DIM, seed=2)
    held(layer, mha(layer, tokens[0].numpy(), memory[0].numpy()), tokens, memory)
    held(layer, mha(layer, tokens[0].numpy(), tokens[0].numpy()), tokens, tokens)


def test_a_wrapped_token_has_no_weight_in_half_precision_either():
    layer = randomised(WindowAttention(DIM, HEADS, 4, shifted=True)).half()
    before = drawn(1, 8, 8, DIM).half()
    after = before.clone()
    after[:, 0, 0] += 1
    with torch.no_grad():
        moved = (layer(after, after) != layer(before, before)).any(-1)[0]
    assert torch.isfinite(layer(before, before)).all()
    assert {tuple(place) for place in moved.nonzero().tolist()} == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize("norm", ["post", "pre", "res-post"])
@pytest.mark.parametrize(("shifted", "kernel"), [(False, 0), (True, 0), (True, 3)])
def test_the_encoder_block_equals_its_formula(norm, shifted, kernel):
    block = randomised(EncoderBlock(DIM, HEADS, 4, FeedForward(DIM, 2.0, kernel), norm, shifted=shifted))
    tokens = drawn(1, 8, 8, DIM)
    h = tokens[0].numpy()
    h = step(block.attend, h, lambda x: mha(block.attend.sublayer, x, x))
    h = step(block.feed, h, lambda x: ffn(block.feed.sublayer, x))
    held(block, h, tokens)


@pytest.mark.parametrize("norm", ["post", "pre", "res-post"])
def test_the_decoder_block_is_self_then_shifted_cross_attention_then_ffn(norm):
    block = randomised(DecoderBlock(DIM, HEADS, 4, FeedForward(DIM, 1.5), norm))
    tokens, memory = drawn(1, 8, 8, DIM), drawn(1, 8, 8, DIM, seed=2)
    assert [block.attend.sublayer.shifted, block.cross.sublayer.shifted] == [False, True]
    h, m = tokens[0].numpy(), memory[0].numpy()
    h = step(block.attend, h, lambda x: mha(block.attend.sublayer, x, x))
    h = step(block.cross, h, lambda x: mha(block.cross.sublayer, x, m))
    h = step(block.feed, h, lambda x: ffn(block.feed.sublayer, x))
    held(block, h, tokens, memory)


@pytest.mark.parametrize("kernel", [0, 5])
@pytest.mark.parametrize("strip", [1, 40, 100])
def test_inference_in_strips_changes_nothing(strip, kernel, monkeypatch):
    """`strip` tokens make strips of one, one and two rows of windows; the last row of windows wraps."""
    block = randomised(DecoderBlock(DIM, HEADS, 4, FeedForward(DIM, 2.0, kernel), "post"))
    tokens, memory = drawn(2, 20, 12, DIM), drawn(2, 20, 12, DIM, seed=2)
    whole = block(tokens, memory)
    monkeypatch.setattr(layers, "STRIP_TOKENS", strip)
    heights: list[int] = []
    block.cross.sublayer.out.register_forward_hook(
        lambda module, inputs, output: heights.append(output.shape[1])
    )
    with torch.no_grad():
        torch.testing.assert_close(block(tokens, memory), whole.detach(), rtol=1e-12, atol=1e-12)
    assert heights == ([2, 2, 1] if strip == 100 else [1] * 5)


def test_batch_elements_are_independent():
    block = randomised(EncoderBlock(DIM, HEADS, 4, FeedForward(DIM, 2.0), "post", shifted=True))
    tokens = drawn(3, 8, 8, DIM)
    with torch.no_grad():
        torch.testing.assert_close(block(tokens)[1:2], block(tokens[1:2]), rtol=1e-12, atol=1e-12)
