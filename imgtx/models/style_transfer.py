"""The style transfer Transformer: a content image in the look of a style picture.

A style encoder turns the style picture into a memory of tokens and one code, once per job (`encode_style`). The
content's tokens meet their neighbours in windows, and the whole memory in cross-attention; the code scales and shifts
their channels, as it does those of the detail path, and maps the content's colours, to which the head's output is
added: an untrained network is the identity. Nothing is computed over the whole content, so that tiles with
enough context equal the whole image.

As in `imgtx.models.transformer`, cheap tokens carry the context, and thin convolutions at full and half resolution
carry the detail.

Shape legend: B batch, G styles, C channels, H and W height and width in pixels, D model width, p patch, M tokens of
the memory, h heads, d = D / h, S width of the code.
"""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtx.models.layers import EncoderBlock, FeedForward, Residual, WindowAttention, attention, by_strips
from imgtx.models.style_config import StyleConfig
from imgtx.models.transformer import by_rows, conv

# Mean and deviation of the pixels of paintings and photos, about.
PIXEL_MEAN, PIXEL_DEVIATION = 0.45, 0.25


class StyleState(NamedTuple):
    """What the decoder needs of a style: computed once per job; `repeat` gives each image of a batch its own.

    code: (G, S). keys, values: one (G, h, M, d) for each decoder block.
    """

    code: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def repeat(self, times: int) -> "StyleState":
        """Return the state for `times` images of each style, style by style."""

        def each(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(part.repeat_interleave(times, 0) for part in parts)

        return StyleState(self.code.repeat_interleave(times, 0), each(self.keys), each(self.values))


class StyleTransfer(nn.Module):
    """Maps content (B, 3, H, W) in [0, 1] and a StyleState of 1 or B styles to (B, 3, H, W), about in [0, 1].

    H and W are multiples of config.multiple. The output is not clamped.
    """

    def __init__(self, config: StyleConfig):
        super().__init__()
        c = config
        self.config = config
        self.style = StyleEncoder(c)
        self.to_keys_values = nn.ModuleList(nn.Linear(c.dim, 2 * c.dim) for _ in range(c.decoder_blocks))

        self.stem = nn.Sequential(
            conv(3, c.detail_channels),
            nn.GELU(approximate="tanh"),
            conv(c.detail_channels, c.detail_channels),
        )
        self.halve = nn.Sequential(conv(4 * c.detail_channels, c.half_channels), nn.GELU(approximate="tanh"))
        fold = c.patch // 2
        self.embed = nn.Linear(c.half_channels * fold**2, c.dim)
        self.encoder = nn.ModuleList(
            EncoderBlock(
                c.dim, c.heads, c.window, FeedForward(c.dim, c.ffn_ratio), "post", shifted=i % 2 == 1
            )
            for i in range(c.encoder_blocks)
        )
        self.decoder = nn.ModuleList(
            StyleDecoderBlock(c, shifted=i % 2 == 1) for i in range(c.decoder_blocks)
        )
        self.unembed = nn.Linear(c.dim, c.half_channels * fold**2)

        self.coarse_gate = Modulation(c.code, c.half_channels)
        self.coarse = nn.ModuleList(StyledDetailBlock(c.half_channels, c.code) for _ in range(c.half_blocks))
        self.enlarge = conv(c.half_channels, 4 * c.detail_channels)
        self.detail_gate = Modulation(c.code, c.detail_channels)
        self.refine = nn.ModuleList(
            StyledDetailBlock(c.detail_channels, c.code) for _ in range(c.detail_blocks)
        )
        self.head = conv(c.detail_channels, 3)
        if c.residual:
            self.colours = ColourMap(c.code)
            nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.get_parameter("bias"), 0.0 if c.residual else 0.5)

    def encode_style(self, style: Tensor) -> StyleState:
        """(G, 3, H, W) in [0, 1], sides multiples of config.style_multiple -> the state of G styles."""
        memory, code = self.style(style)
        keys, values = [], []
        for project in self.to_keys_values:
            key, value = project(memory).chunk(2, dim=-1)
            keys.append(split_heads(key, self.config.heads))
            values.append(split_heads(value, self.config.heads))
        return StyleState(code, tuple(keys), tuple(values))

    def forward(self, content: Tensor, state: StyleState) -> Tensor:
        code, fold = state.code, self.config.patch // 2
        detail = by_rows(self.stem, standardised(content), reach=2)  # B, detail, H, W
        half = by_rows(self.halve, F.pixel_unshuffle(detail, 2), reach=1)  # B, half, H/2, W/2
        tokens = self.embed(F.pixel_unshuffle(half, fold).permute(0, 2, 3, 1))  # B, H/p, W/p, D
        for block in self.encoder:
            tokens = block(tokens)
        for block, key, value in zip(self.decoder, state.keys, state.values, strict=True):
            tokens = block(tokens, key, value, code)
        half = self.coarse_gate(half, code) + F.pixel_shuffle(self.unembed(tokens).permute(0, 3, 1, 2), fold)
        del tokens
        for block in self.coarse:
            half = by_rows(partial(block, code=code), half, reach=2)
        doubled = by_rows(lambda x: F.pixel_shuffle(self.enlarge(x), 2), half, reach=1, scale=2)
        del half
        detail = self.detail_gate(detail, code) + doubled
        for block in self.refine:
            detail = by_rows(partial(block, code=code), detail, reach=2)
        output = by_rows(self.head, detail, reach=1)
        return self.colours(content, code) + output if self.config.residual else output


class StyleEncoder(nn.Module):
    """Maps style pictures (G, 3, H, W) to a memory (G, M, D), M = H W / 256, and codes (G, S).

    The code also sees means and standard deviations of the first features: colours and contrast.
    """

    def __init__(self, config: StyleConfig):
        super().__init__()
        c, narrow = config, 96
        self.stem = nn.Sequential(conv(48, narrow), nn.GELU(approximate="tanh"))
        self.embed = nn.Linear(4 * narrow, c.dim)
        self.blocks = nn.ModuleList(self._block(c, i) for i in range(c.style_blocks))
        self.merge = nn.Linear(4 * c.dim, c.dim)
        self.merged = nn.ModuleList(self._block(c, i) for i in range(c.merged_blocks))
        self.to_code = nn.Sequential(
            nn.Linear(2 * narrow + 4 * c.dim, c.code), nn.GELU(approximate="tanh"), nn.Linear(c.code, c.code)
        )
        # Colours get a way of their own: from the first step on, the code differs as much as the styles' colours do.
        self.colours_to_code = nn.Linear(6, c.code)

    @staticmethod
    def _block(c: StyleConfig, number: int) -> EncoderBlock:
        feed = FeedForward(c.dim, c.ffn_ratio)
        return EncoderBlock(c.dim, c.heads, c.window, feed, "post", shifted=number % 2 == 1)

    def forward(self, style: Tensor) -> tuple[Tensor, Tensor]:
        pixels = standardised(style)
        early = self.stem(F.pixel_unshuffle(pixels, 4))  # G, narrow, H/4, W/4
        tokens = self.embed(F.pixel_unshuffle(early, 2).permute(0, 2, 3, 1))  # G, H/8, W/8, D
        for block in self.blocks:
            tokens = block(tokens)
        merged = self.merge(F.pixel_unshuffle(tokens.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1))
        for block in self.merged:
            merged = block(merged)
        memory = merged.flatten(1, 2)
        code = self.to_code(
            torch.cat([*moments(early.flatten(2)), *moments(tokens.flatten(1, 2).mT), *moments(memory.mT)], 1)
        )
        colours = torch.cat(moments(pixels.flatten(2)), 1)
        return memory, code + self.colours_to_code(colours)


class StyleDecoderBlock(nn.Module):
    """Self-attention in windows, cross-attention to the whole style memory, FFN, each in its residual step (post-norm);
    then the style's code scales and shifts the channels."""

    def __init__(self, config: StyleConfig, *, shifted: bool):
        super().__init__()
        c = config
        self.attend = Residual(c.dim, WindowAttention(c.dim, c.heads, c.window, shifted=shifted), "post")
        self.cross = MemoryAttention(c.dim, c.heads)
        self.cross_norm = nn.LayerNorm(c.dim)
        self.feed = Residual(c.dim, FeedForward(c.dim, c.ffn_ratio), "post")
        self.modulate = Modulation(c.code, c.dim)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, code: Tensor) -> Tensor:
        """(B, H, W, D), keys and values (B or 1, h, M, d), code (B or 1, S) -> (B, H, W, D)."""
        x = self.attend(x)
        x = self.cross_norm(x + self.cross(x, key, value))
        return self.modulate(self.feed(x).permute(0, 3, 1, 2), code).permute(0, 2, 3, 1)


class MemoryAttention(nn.Module):
    """Attention from every token of (B, H, W, D) to a memory without positions, given as keys and values."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return by_strips(lambda top, bottom: self._rows(x[:, top:bottom], key, value), x, 1)

    def _rows(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed = attention(split_heads(self.query(x).flatten(1, 2), self.heads), key, value)  # B, h, HW, d
        return self.out(mixed.transpose(1, 2).flatten(2)).view(x.shape)


class Modulation(nn.Module):
    """x (1 + a) + b for each channel of (B, C, H, W), a and b linear in the code; untrained the identity."""

    def __init__(self, code: int, channels: int):
        super().__init__()
        self.linear = nn.Linear(code, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        scale, shift = self.linear(code)[:, :, None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift


class ColourMap(nn.Module):
    """A c + b for each colour c of (B, 3, H, W), A and b linear in the code; untrained the identity."""

    def __init__(self, code: int):
        super().__init__()
        self.linear = nn.Linear(code, 12)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        change, shift = self.linear(code).unflatten(1, (3, 4)).split((3, 1), dim=2)  # B, 3, 3 and B, 3, 1
        return x + (change @ x.flatten(2) + shift).view(x.shape)


class StyledDetailBlock(nn.Module):
    """x + conv(GELU(modulated conv(x))) on (B, C, H, W)."""

    def __init__(self, channels: int, code: int):
        super().__init__()
        self.first, self.second = conv(channels, channels), conv(channels, channels)
        self.modulate = Modulation(code, channels)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.modulate(self.first(x), code), approximate="tanh"))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, h, T, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def standardised(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] with a mean near 0 and a deviation near 1."""
    return (pixels - PIXEL_MEAN) / PIXEL_DEVIATION


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the last dimension of (B, C, N): two of (B, C)."""
    variance, mean = torch.var_mean(x.float(), dim=-1, correction=0)
    return mean.to(x.dtype), (variance + 1e-6).sqrt().to(x.dtype)
