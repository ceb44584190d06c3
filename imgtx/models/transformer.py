"""The encoder-decoder Transformer of imgtx, for dense tasks (image in, image out).

Two paths run side by side: cheap tokens of `patch` x `patch` pixels for context (encoder and decoder), and a thin
path of 3x3 convolutions at full resolution for detail. Tokens rejoin the detail path before the head, and the
head's output is added to a bicubic enlargement, so that an untrained model is exactly bicubic.

With `config.holes` the last input channel is a mask, 1 in the hole, and the others come with the hole filled smoothly
(`imgtx.imageops.holes`): the encoder sees that fill, the decoder's queries of tokens mostly in the hole are one
learned vector, and the head's output is added in the hole only.

Shape legend: B batch, C channels, H and W height and width in pixels, D model width, p patch, s scale.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtx.models.config import ModelConfig
from imgtx.models.layers import DecoderBlock, EncoderBlock, FeedForward

# Pixels that the convolutions of the detail path take at once in inference.
STRIP_PIXELS = 32768


class EncoderDecoder(nn.Module):
    """Maps (B, in_channels, H, W) in [0, 1] to (B, out_channels, s H, s W); H, W multiples of config.multiple.

    The output is not clamped: training needs gradients there, `imgtx.inference.predictor` clamps.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        c, detail = config, config.detail_channels
        self.config = config
        self.stem = nn.Sequential(
            conv(c.in_channels, detail), nn.GELU(approximate="tanh"), conv(detail, detail)
        )
        self.embed = nn.Linear(detail * c.patch**2, c.dim)
        self.embed_query = nn.Linear(detail * c.patch**2, c.dim)
        self.encoder = nn.ModuleList(
            EncoderBlock(c.dim, c.heads, c.window, feed_forward(c), c.norm, shifted=i % 2 == 1)
            for i in range(c.encoder_blocks)
        )
        self.decoder = nn.ModuleList(
            DecoderBlock(c.dim, c.heads, c.window, feed_forward(c), c.norm) for _ in range(c.decoder_blocks)
        )
        self.unembed = nn.Linear(c.dim, detail * c.patch**2)
        self.refine = nn.ModuleList(DetailBlock(detail) for _ in range(c.detail_blocks))
        self.head = conv(detail, c.out_channels * c.scale**2)
        if c.holes:
            self.mask_token = nn.Parameter(torch.zeros(c.dim))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.get_parameter("bias"))

    def forward(self, image: Tensor) -> Tensor:
        detail = by_rows(self.stem, image, reach=2)  # B, detail, H, W
        patches = self.to_patches(detail)  # B, H/p, W/p, detail p p
        memory, tokens = self.embed(patches), self.embed_query(patches)  # B, H/p, W/p, D
        del patches
        if self.config.holes:
            tokens = self.with_mask_tokens(tokens, image[:, -1:])
        for block in self.encoder:
            memory = block(memory)
        for block in self.decoder:
            tokens = block(tokens, memory)
        detail = detail + self.from_patches(self.unembed(tokens))  # B, detail, H, W
        del memory, tokens
        for block in self.refine:
            detail = by_rows(block, detail, reach=2)
        change = by_rows(self.to_pixels, detail, reach=1, scale=self.config.scale)  # B, C, s H, s W
        if self.config.holes:
            return image[:, :-1] + image[:, -1:] * change
        return self.enlarge(image) + change

    def with_mask_tokens(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Replace tokens (B, H/p, W/p, D) by the learned one where the mask's patch (B, 1, H, W) is mostly hole."""
        share = F.avg_pool2d(mask.float(), self.config.patch)[:, 0, :, :, None]  # B, H/p, W/p, 1
        return torch.where(share > 0.5, self.mask_token.to(tokens.dtype), tokens)

    def enlarge(self, image: Tensor) -> Tensor:
        """Bicubic, (B, C, H, W) -> (B, C, s H, s W)."""
        if self.config.scale == 1:
            return image
        return F.interpolate(image, scale_factor=self.config.scale, mode="bicubic", align_corners=False)

    def to_pixels(self, detail: Tensor) -> Tensor:
        """(B, detail, H, W) -> (B, C, s H, s W)."""
        return F.pixel_shuffle(self.head(detail), self.config.scale)

    def to_patches(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H/p, W/p, C p p)."""
        return F.pixel_unshuffle(x, self.config.patch).permute(0, 2, 3, 1)

    def from_patches(self, patches: Tensor) -> Tensor:
        """Invert `to_patches`: (B, H/p, W/p, C p p) -> (B, C, H, W)."""
        return F.pixel_shuffle(patches.permute(0, 3, 1, 2), self.config.patch)


class DetailBlock(nn.Module):
    """x + conv(GELU(conv(x))) at full resolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels), nn.GELU(approximate="tanh"), conv(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def by_rows(work: Callable[[Tensor], Tensor], x: Tensor, *, reach: int, scale: int = 1) -> Tensor:
    """`work(x)` for strips of rows of (B, C, H, W), joined; its output looks `reach` rows up and down.

    As `imgtx.models.layers.by_strips` for convolutions: less memory in inference, one piece in training.
    """
    height, width = x.shape[2:]
    rows = max(8 * reach, STRIP_PIXELS // width)
    if torch.is_grad_enabled() or rows >= height:
        return work(x)
    joined: Tensor | None = None
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(0, top - reach), min(height, bottom + reach)
        strip = work(x[:, :, first:last])[:, :, (top - first) * scale : (bottom - first) * scale]
        joined = (
            strip.new_empty(*strip.shape[:2], height * scale, width * scale) if joined is None else joined
        )
        joined[:, :, top * scale : bottom * scale] = strip
    # There is at least one row.
    assert joined is not None
    return joined


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


def feed_forward(config: ModelConfig) -> FeedForward:
    return FeedForward(config.dim, config.ffn_ratio, config.ffn_kernel)
