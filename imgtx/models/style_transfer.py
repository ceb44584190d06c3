"""The style transfer Transformer: a content image in the look of a style picture.

A style encoder turns the style picture into a memory of tokens and one code, once per job (`encode_style`). The
content's tokens meet their neighbours in windows, and the whole memory in cross-attention. Then each convolution is
normalised by the statistics of the whole content, and the code scales and shifts its channels, down to the three of
the output: a style decides the mean and the contrast of every channel, whatever the content's were.

Those statistics are all that is computed over the whole content (`Statistics`). They are measured once per image and
given to each of its tiles (`imgtx.inference.whole_image`), so that tiles with enough context equal the whole image.

Shape legend: B batch, G styles, C channels, H and W height and width in pixels, D model width, p patch, M tokens of
the memory, h heads, d = D / h, S width of the code.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtx.models.layers import EncoderBlock, FeedForward, Residual, WindowAttention, attention, by_strips
from imgtx.models.style_config import StyleConfig
from imgtx.models.transformer import by_rows

# Mean and deviation of the pixels of paintings and photos, about.
PIXEL_MEAN, PIXEL_DEVIATION = 0.45, 0.25
# The modules of the network that look at the style.
STYLE_ENCODER = ("style", "to_keys_values")


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

    def like(self, other: Tensor) -> "StyleState":
        """Return the state on the device and in the dtype of a tensor."""

        def each(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(part.to(other) for part in parts)

        return StyleState(self.code.to(other), each(self.keys), each(self.values))


class Statistics:
    """Means and deviations of the channels of each layer that is normalised, in the order of the layers.

    Measured on what goes through the network, over each image or, `together`, over all; or `known` before: those of the
    whole image, for a tile of it. Each is (B, C, 1, 1).
    """

    def __init__(self, known: Sequence[tuple[Tensor, Tensor]] = (), *, together: bool = False):
        self.known, self.together = tuple(known), together
        self.measured: list[tuple[Tensor, Tensor]] = []

    def of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return those of the next layer, whose activations are (B, C, H, W)."""
        if self.known:
            found = self.known[len(self.measured)]
        else:
            over = (0, 2, 3) if self.together else (2, 3)
            # Sums over an image need float32 at least.
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            variance, mean = torch.var_mean(wide, over, correction=0, keepdim=True)
            found = mean, (variance + 1e-5).sqrt()
        self.measured.append(found)
        return found


class StyleTransfer(nn.Module):
    """Maps content (B, 3, H, W) in [0, 1] and a StyleState of 1 or B styles to (B, 3, H, W) in [0, 1].

    H and W are multiples of config.multiple. statistics: those of the whole image, where the content is a tile. noise:
    normal, (B, config.noise_channels, H/p, W/p), from which strokes begin where the content is even; none is zeros.
    """

    def __init__(self, config: StyleConfig):
        super().__init__()
        c = config
        self.config = config
        self.style = StyleEncoder(c)
        self.to_keys_values = nn.ModuleList(
            nn.Linear(c.style_dim, 2 * c.dim) for _ in range(c.decoder_blocks)
        )

        self.stem = conv(3, c.detail_channels, 5)
        self.halve = conv(4 * c.detail_channels, c.half_channels)
        fold = c.patch // 2
        self.embed = nn.Linear(c.half_channels * fold**2, c.dim)
        # Even areas have nothing that a stroke could begin with, broad or fine.
        self.embed_noise = nn.Linear(c.noise_channels, c.dim, bias=False)
        # Tokens of any length would make the first attention all or nothing, and its gradients drown all others.
        self.embed_norm = nn.LayerNorm(c.dim)
        self.encoder = nn.ModuleList(
            EncoderBlock(
                c.dim, c.heads, c.window, FeedForward(c.dim, c.ffn_ratio), "post", shifted=i % 2 == 1
            )
            for i in range(c.encoder_blocks)
        )
        self.decoder = nn.ModuleList(
            StyleDecoderBlock(c, shifted=i % 2 == 0) for i in range(c.decoder_blocks)
        )
        self.to_half = conv(c.dim, c.half_channels)
        self.skip_half = nn.Conv2d(c.half_channels, c.half_channels, 1)
        self.half_noise = nn.Conv2d(c.noise_channels // fold**2, c.half_channels, 1, bias=False)
        self.half_norm = StyledNorm(c.half_channels, c.code)
        # Tokens stand for patches of 4 pixels: what is finer is drawn here.
        self.half_mix = nn.ModuleList(StyledBlock(c.half_channels, c.code) for _ in range(c.half_blocks))
        self.to_detail = conv(c.half_channels, c.detail_channels)
        self.skip_detail = nn.Conv2d(c.detail_channels, c.detail_channels, 1)
        self.detail_noise = nn.Conv2d(c.noise_channels // c.patch**2, c.detail_channels, 1, bias=False)
        self.detail_norm = StyledNorm(c.detail_channels, c.code)
        self.head = conv(c.detail_channels, 3, 7)
        self.head_norm = StyledNorm(3, c.code)

    def forget_style_encoder(self) -> None:
        """Leave nothing but what paints: for weights that have the state of the one style they were fitted to."""
        for name in STYLE_ENCODER:
            delattr(self, name)

    def encode_style(self, style: Tensor) -> StyleState:
        """(G, 3, H, W) in [0, 1], sides multiples of config.style_multiple -> the state of G styles."""
        memory, code = self.style(style)
        keys, values = [], []
        for project in self.to_keys_values:
            key, value = project(memory).chunk(2, dim=-1)
            keys.append(split_heads(key, self.config.heads))
            values.append(split_heads(value, self.config.heads))
        return StyleState(code, tuple(keys), tuple(values))

    def forward(
        self,
        content: Tensor,
        state: StyleState,
        statistics: Statistics | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        code, fold, of = state.code, self.config.patch // 2, statistics or Statistics()
        detail = by_rows(lambda x: F.relu(self.stem(x)), standardised(content), reach=2)  # B, detail, H, W
        half = by_rows(lambda x: F.relu(self.halve(x)), F.pixel_unshuffle(detail, 2), reach=1)
        tokens = self.embed(F.pixel_unshuffle(half, fold).permute(0, 2, 3, 1))  # B, H/p, W/p, D
        if noise is not None:
            noise = noise.to(tokens.dtype)
            tokens = tokens + self.embed_noise(noise.permute(0, 2, 3, 1))
        tokens = self.embed_norm(tokens)
        for block in self.encoder:
            tokens = block(tokens)
        for block, key, value in zip(self.decoder, state.keys, state.values, strict=True):
            tokens = block(tokens, key, value, code, of)
        # The nearest token's features would leave a grid in even areas.
        x = F.interpolate(tokens.permute(0, 3, 1, 2), scale_factor=fold, mode="bilinear")
        x = by_rows(self.to_half, x, reach=1) + self.skip_half(half)
        if noise is not None:
            x = x + self.half_noise(F.pixel_shuffle(noise, fold))
        x = F.relu(self.half_norm(x, code, of))
        for block in self.half_mix:
            x = block(x, code, of)
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        x = by_rows(self.to_detail, x, reach=1) + self.skip_detail(detail)
        if noise is not None:
            x = x + self.detail_noise(F.pixel_shuffle(noise, self.config.patch))
        x = by_rows(self.head, F.relu(self.detail_norm(x, code, of)), reach=3)
        return torch.sigmoid(self.head_norm(x, code, of))


class StyleEncoder(nn.Module):
    """Maps style pictures (G, 3, H, W) to a memory (G, M, D), M = H W / 256, and codes (G, S).

    The code also sees means and standard deviations of features of every size: colours, contrast, strokes.
    """

    def __init__(self, config: StyleConfig):
        super().__init__()
        c, first = config, config.style_channels
        self.stem = nn.Sequential(conv(48, first), nn.GELU(approximate="tanh"))
        self.texture = conv(first, first)
        self.embed = nn.Linear(4 * first, c.style_dim)
        self.blocks = nn.ModuleList(self._block(c, i) for i in range(c.style_blocks))
        self.merge = nn.Linear(4 * c.style_dim, c.style_dim)
        self.merged = nn.ModuleList(self._block(c, i) for i in range(c.merged_blocks))
        self.to_code = nn.Sequential(
            nn.Linear(4 * (first + c.style_dim), 2 * first),
            nn.GELU(approximate="tanh"),
            nn.Linear(2 * first, c.code),
        )
        # Colours get a way of their own: from the first step on, the code differs as much as the styles' colours do.
        self.colours_to_code = nn.Linear(6, c.code)

    @staticmethod
    def _block(c: StyleConfig, number: int) -> EncoderBlock:
        feed = FeedForward(c.style_dim, c.ffn_ratio)
        return EncoderBlock(c.style_dim, c.heads, c.window, feed, "post", shifted=number % 2 == 1)

    def forward(self, style: Tensor) -> tuple[Tensor, Tensor]:
        pixels = standardised(style)
        early = self.stem(F.pixel_unshuffle(pixels, 4))  # G, first, H/4, W/4
        texture = early + F.gelu(self.texture(early), approximate="tanh")
        tokens = self.embed(F.pixel_unshuffle(texture, 2).permute(0, 2, 3, 1))  # G, H/8, W/8, D
        for block in self.blocks:
            tokens = block(tokens)
        merged = self.merge(F.pixel_unshuffle(tokens.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1))
        for block in self.merged:
            merged = block(merged)
        memory = merged.flatten(1, 2)
        seen = early.flatten(2), texture.flatten(2), tokens.flatten(1, 2).mT, memory.mT
        code = self.to_code(torch.cat([part for features in seen for part in moments(features)], 1))
        colours = torch.cat(moments(pixels.flatten(2)), 1)
        return memory, code + self.colours_to_code(colours)


class StyleDecoderBlock(nn.Module):
    """Self-attention in windows, cross-attention to the whole style memory, FFN, each in its residual step (post-norm:
    a token that stood out would take the contrast from all others in the next norm, and be a blot in the image); then
    convolutions, each normalised, scaled and shifted by the style's code."""

    def __init__(self, config: StyleConfig, *, shifted: bool):
        super().__init__()
        c = config
        self.attend = Residual(c.dim, WindowAttention(c.dim, c.heads, c.window, shifted=shifted), "post")
        self.cross_norm = nn.LayerNorm(c.dim)
        self.cross = MemoryAttention(c.dim, c.heads)
        self.feed = Residual(c.dim, FeedForward(c.dim, c.ffn_ratio), "post")
        self.mix = nn.ModuleList(StyledBlock(c.dim, c.code) for _ in range(c.mix_blocks))

    def forward(self, x: Tensor, key: Tensor, value: Tensor, code: Tensor, of: Statistics) -> Tensor:
        """(B, H, W, D), keys and values (B or 1, h, M, d), code (B or 1, S) -> (B, H, W, D)."""
        x = self.attend(x)
        x = self.cross_norm(x + self.cross(x, key, value))
        x = self.feed(x).permute(0, 3, 1, 2)
        for block in self.mix:
            x = block(x, code, of)
        return x.permute(0, 2, 3, 1)


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


class StyledNorm(nn.Module):
    """(B, C, H, W) normalised by the image's statistics, then x (1 + a) + b, a and b of each channel linear in the code
    (Dumoulin et al. 2017)."""

    def __init__(self, channels: int, code: int):
        super().__init__()
        self.linear = nn.Linear(code, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, code: Tensor, of: Statistics) -> Tensor:
        mean, deviation = of.of(x)
        scale, shift = self.linear(code)[:, :, None, None].chunk(2, dim=1)
        scale = (1 + scale) / deviation
        return x * scale.to(x.dtype) + (shift - mean * scale).to(x.dtype)


class StyledBlock(nn.Module):
    """x + norm(conv(ReLU(norm(conv(x))))) on (B, C, H, W), both normalised in the style."""

    def __init__(self, channels: int, code: int):
        super().__init__()
        self.first, self.second = conv(channels, channels), conv(channels, channels)
        self.first_norm, self.second_norm = StyledNorm(channels, code), StyledNorm(channels, code)

    def forward(self, x: Tensor, code: Tensor, of: Statistics) -> Tensor:
        inside = F.relu(self.first_norm(by_rows(self.first, x, reach=1), code, of))
        return x + self.second_norm(by_rows(self.second, inside, reach=1), code, of)


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    # Zeros beyond the edge would be a frame around every image: they are far from what is normalised.
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="replicate")


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
