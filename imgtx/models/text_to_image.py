"""The text-to-image Transformer: a text encoder, and a decoder that removes noise from a picture.

The encoder turns a prompt's tokens into a memory, once per picture (`encode_text`). The decoder predicts the clean
picture from a noisy one, in pixels: large patches are its tokens, which meet each other in self-attention and the
prompt in cross-attention. Time and the mean of the memory scale and shift the channels of all blocks through one shared
layer (adaLN-single: Chen et al., PixArt, arXiv 2310.00426, section 2.3). Predicting the picture rather than the noise
is what makes large patches work (Li and He, JiT, arXiv 2511.13720).

The path from noise to picture is straight: z = t x + (1 - t) e with the picture x in [-1, 1], noise e and time t in
[0, 1].

Shape legend: B batch, S side in pixels, p patch, G = S / p, D model width, T tokens of a prompt, h heads, d = D / h.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtx.models.layers import FeedForward, WindowAttention, attention
from imgtx.models.text_to_image_config import TextToImageConfig
from imgtx.models.text_to_image_tokenizer import FIRST_WORD, PAD

# Waves that a time is given as.
TIME_WAVES = 128


class TextState(NamedTuple):
    """What the decoder needs of prompts, computed once per picture.

    pooled: (B, D). bias: (B, 1, 1, T), which hides padding. keys, values: one (B, h, T, d) for each block.
    """

    pooled: Tensor
    bias: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class TextToImage(nn.Module):
    """Maps noisy pictures (B, 3, S, S), times (B,) in [0, 1] and prompts to pictures (B, 3, S, S), about in [-1, 1]."""

    def __init__(self, config: TextToImageConfig):
        super().__init__()
        c = config
        self.config = config
        self.text = TextEncoder(c)
        self.to_keys_values = nn.ModuleList(nn.Linear(c.dim, 2 * c.dim) for _ in range(c.blocks))
        self.time = nn.Sequential(nn.Linear(2 * TIME_WAVES, c.dim), nn.SiLU(), nn.Linear(c.dim, c.dim))
        self.pooled = nn.Linear(c.dim, c.dim)
        # Six vectors per channel for every block, two for the head.
        self.modulation = nn.Linear(c.dim, 6 * c.dim)
        self.head_modulation = nn.Linear(c.dim, 2 * c.dim)
        self.embed = nn.Linear(3 * c.patch**2, c.dim)
        self.positions = nn.Parameter(0.02 * torch.randn(c.grid, c.grid, c.dim))
        self.blocks = nn.ModuleList(DrawingBlock(c) for _ in range(c.blocks))
        self.head = nn.Linear(c.dim, 3 * c.patch**2)
        for layer in (self.modulation, self.head_modulation, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def encode_text(self, tokens: Tensor) -> TextState:
        """(B, T) token numbers, padded at the end -> what the decoder needs of them."""
        present = tokens != PAD
        bias = torch.where(present, 0.0, -1e4)[:, None, None]  # B, 1, 1, T
        memory = self.text(tokens, bias)
        share = present[..., None].to(memory.dtype)
        pooled = (memory * share).sum(1) / share.sum(1)
        keys, values = [], []
        for project in self.to_keys_values:
            key, value = project(memory).chunk(2, dim=-1)
            keys.append(split_heads(key, self.config.heads))
            values.append(split_heads(value, self.config.heads))
        return TextState(pooled, bias, tuple(keys), tuple(values))

    def forward(self, noisy: Tensor, time: Tensor, text: TextState | Tensor) -> Tensor:
        """text: what `encode_text` returned, or the token numbers (B, T) themselves, as training gives them."""
        if isinstance(text, Tensor):
            text = self.encode_text(text)
        patch = self.config.patch
        condition = F.silu(self.time(waves(time).to(noisy.dtype)) + self.pooled(text.pooled))  # B, D
        shared = self.modulation(condition).unflatten(-1, (6, -1))  # B, 6, D
        x = self.embed(F.pixel_unshuffle(noisy, patch).permute(0, 2, 3, 1)) + self.positions  # B, G, G, D
        for block, key, value in zip(self.blocks, text.keys, text.values, strict=True):
            x = block(x, key, value, text.bias, shared)
        shift, scale = self.head_modulation(condition)[:, None, None].chunk(2, dim=-1)
        x = self.head(normed(x) * (1 + scale) + shift)
        return F.pixel_shuffle(x.permute(0, 3, 1, 2), patch)


class TextEncoder(nn.Module):
    """Maps token numbers (B, T) to a memory (B, T, D); `bias` (B, 1, 1, T) hides padding."""

    def __init__(self, config: TextToImageConfig):
        super().__init__()
        c = config
        self.words = nn.Embedding(FIRST_WORD + len(c.vocabulary), c.dim)
        self.positions = nn.Parameter(0.02 * torch.randn(c.max_tokens, c.dim))
        self.attend = nn.ModuleList(TextAttention(c.dim, c.heads) for _ in range(c.text_blocks))
        self.feed = nn.ModuleList(FeedForward(c.dim, c.text_ffn_ratio) for _ in range(c.text_blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(c.dim) for _ in range(2 * c.text_blocks))
        self.last_norm = nn.LayerNorm(c.dim)
        nn.init.normal_(self.words.weight, std=0.5)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        x = self.words(tokens) + self.positions[: tokens.shape[1]]
        for i, (attend, feed) in enumerate(zip(self.attend, self.feed, strict=True)):
            x = x + attend(self.norms[2 * i](x), bias)
            x = x + feed(self.norms[2 * i + 1](x)[:, None])[:, 0]
        return self.last_norm(x)


class TextAttention(nn.Module):
    """Self-attention over the tokens of a prompt, (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.query_key_value(x).chunk(3, -1))
        return self.out(attention(query, key, value, bias.to(query.dtype)).transpose(1, 2).flatten(2))


class DrawingBlock(nn.Module):
    """Self-attention of the picture's tokens, cross-attention to the prompt, FFN, each added to its normed input.

    `shared` (B, 6, D) and the block's own numbers shift, scale and weight self-attention and FFN; at first that is the
    identity.
    """

    def __init__(self, config: TextToImageConfig):
        super().__init__()
        c = config
        # One window is the whole picture.
        self.attend = WindowAttention(c.dim, c.heads, c.grid)
        self.cross = PromptAttention(c.dim, c.heads)
        self.feed = FeedForward(c.dim, c.ffn_ratio)
        self.own = nn.Parameter(torch.zeros(6, c.dim))

    def forward(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor, shared: Tensor) -> Tensor:
        """(B, G, G, D), keys and values (B, h, T, d) -> (B, G, G, D)."""
        shift, scale, gate, feed_shift, feed_scale, feed_gate = (
            (shared + self.own)[:, :, None, None].to(x.dtype).unbind(1)
        )
        inside = normed(x) * (1 + scale) + shift
        x = x + (1 + gate) * self.attend(inside, inside)
        x = x + self.cross(normed(x), key, value, bias)
        return x + (1 + feed_gate) * self.feed(normed(x) * (1 + feed_scale) + feed_shift)


class PromptAttention(nn.Module):
    """Attention from every token of (B, G, G, D) to a prompt, given as keys and values."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        query = split_heads(self.query(x).flatten(1, 2), self.heads)  # B, h, GG, d
        mixed = attention(query, key, value, bias.to(query.dtype))
        return self.out(mixed.transpose(1, 2).flatten(2)).view(x.shape)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, h, T, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def normed(x: Tensor) -> Tensor:
    """LayerNorm over the last dimension without numbers of its own: the modulation has them."""
    return F.layer_norm(x, x.shape[-1:])


def waves(time: Tensor) -> Tensor:
    """Times (B,) in [0, 1] as cosines and sines of periods from 1/160 to 60: (B, 2 TIME_WAVES)."""
    rates = torch.exp(torch.linspace(0, math.log(1e4), TIME_WAVES, device=time.device)) / 10
    angles = time.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], 1)
