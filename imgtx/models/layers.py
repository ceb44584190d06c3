"""The parts of the encoder-decoder Transformer: attention, windows, feed-forward, blocks.

Shape legend: B batch, H and W height and width in tokens, D model width, N windows, T tokens in a window
(window squared), h heads, d = D / h.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from imgtx.models.config import Norm

# Tokens that attention and FFN take at once in inference: their activations then stay near the CPU's caches, and
# memory no longer grows with the tile. GPUs want larger pieces, and a strip of this size is one there too.
STRIP_TOKENS = 4096


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + bias) V over the last two dimensions (Vaswani et al. 2017, equation 1).

    query (..., Tq, d), key and value (..., Tk, d), bias broadcastable to (..., Tq, Tk); returns (..., Tq, d).
    Spelled out rather than `scaled_dot_product_attention`: with windows of 64 tokens on a CPU the explicit form
    trains 1.5 to 2 times faster, and it leaves the window mask to the few windows that need one.
    """
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1) @ value


def partition(tokens: Tensor, window: int) -> Tensor:
    """(B, H, W, D) -> (B, H/window, W/window, T, D); H and W are multiples of `window`."""
    b, h, w, d = tokens.shape
    grid = tokens.view(b, h // window, window, w // window, window, d)
    return grid.transpose(2, 3).reshape(b, h // window, w // window, window * window, d)


def unpartition(windows: Tensor, window: int) -> Tensor:
    """Invert `partition`: (B, H/window, W/window, T, D) -> (B, H, W, D)."""
    b, rows, columns, _, d = windows.shape
    grid = windows.view(b, rows, columns, window, window, d).transpose(2, 3)
    return grid.reshape(b, rows * window, columns * window, d)


def relative_positions(window: int) -> Tensor:
    """(T, T) index of the offset between each pair of tokens, in [0, (2 window - 1)^2) (Liu et al. 2021, Swin)."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    span = 2 * window - 1
    return (y[:, None] - y[None, :] + window - 1) * span + (x[:, None] - x[None, :] + window - 1)


def wrap_masks(window: int) -> tuple[Tensor, Tensor]:
    """(T, T) additive masks for the last row and the last column of shifted windows.

    After a cyclic shift by half a window those windows hold tokens from opposite edges of the image, which must
    not see each other: 0 where a pair may attend, -1e4 (finite in half precision too) where not.
    """
    side = torch.arange(window) >= window - window // 2
    low = side[:, None].expand(window, window).flatten()
    right = side[None, :].expand(window, window).flatten()

    def forbid(part: Tensor) -> Tensor:
        return torch.where(part[:, None] == part[None, :], 0.0, -1e4)

    return forbid(low), forbid(right)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, from `tokens` to `memory` (self-attention where both are one).

    With `shifted`, windows begin half a window further down and right, so that neighbours meet.
    """

    def __init__(self, dim: int, heads: int, window: int, *, shifted: bool = False):
        super().__init__()
        self.heads, self.window, self.shifted = heads, window, shifted
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.position_bias = nn.Parameter(torch.zeros(heads, (2 * window - 1) ** 2))
        self.positions: Tensor
        self.low_mask: Tensor
        self.right_mask: Tensor
        self.register_buffer("positions", relative_positions(window), persistent=False)
        low, right = wrap_masks(window)
        self.register_buffer("low_mask", low, persistent=False)
        self.register_buffer("right_mask", right, persistent=False)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """(B, H, W, D), (B, H, W, D) -> (B, H, W, D)."""
        shift = self.window // 2 if self.shifted else 0
        if shift:
            is_self = tokens is memory
            tokens = tokens.roll((-shift, -shift), (1, 2))
            memory = tokens if is_self else memory.roll((-shift, -shift), (1, 2))
        height = tokens.shape[1]
        mixed = by_strips(
            lambda top, bottom: self._attend(
                tokens[:, top:bottom], memory[:, top:bottom], lowest=bottom == height
            ),
            tokens,
            self.window,
        )
        return mixed.roll((shift, shift), (1, 2)) if shift else mixed

    def _attend(self, tokens: Tensor, memory: Tensor, *, lowest: bool) -> Tensor:
        """Attention in the windows of some rows of windows; `lowest` says that the last of all is among them."""
        query = self._split_heads(self.query(partition(tokens, self.window)))  # B, N, N, h, T, d
        key, value = self.key_value(partition(memory, self.window)).chunk(2, dim=-1)
        bias = self._bias(query, lowest=lowest)
        mixed = attention(query, self._split_heads(key), self._split_heads(value), bias)
        mixed = mixed.transpose(-3, -2).flatten(-2)  # B, N, N, T, D
        return unpartition(self.out(mixed), self.window)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def _bias(self, query: Tensor, *, lowest: bool) -> Tensor:
        bias = self.position_bias[:, self.positions].to(query.dtype)  # h, T, T
        if not self.shifted:
            return bias
        rows, columns = query.shape[1:3]
        bias = bias.repeat(rows, columns, 1, 1, 1)
        bias[:, -1] += self.right_mask.to(query.dtype)
        if lowest:
            bias[-1] += self.low_mask.to(query.dtype)
        return bias


class FeedForward(nn.Sequential):
    """FFN(x) = W2 h + b2 with h = GELU(W1 x + b1) for each token; x is (B, H, W, D).

    With a `kernel`, an odd number of tokens, neighbours meet in between: h + GELU(depthwise convolution of h), as in
    Zhou et al., SRFormer (2023).
    """

    def __init__(self, dim: int, ratio: float, kernel: int = 0):
        hidden = round(dim * ratio)
        super().__init__(nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, dim))
        self.reach = kernel // 2
        self.meet = nn.Conv2d(hidden, hidden, kernel, padding=self.reach, groups=hidden) if kernel else None

    def forward(self, x: Tensor) -> Tensor:
        return by_strips(lambda top, bottom: self._rows(x, top, bottom), x, 1)

    def _rows(self, x: Tensor, top: int, bottom: int) -> Tensor:
        """Return rows `top` to `bottom` of the output."""
        widen, activate, narrow = self[0], self[1], self[2]
        if self.meet is None:
            return narrow(activate(widen(x[:, top:bottom])))
        first = max(0, top - self.reach)
        hidden = activate(widen(x[:, first : bottom + self.reach]))
        met = activate(self.meet(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return narrow((hidden + met)[:, top - first : bottom - first])


def by_strips(work: Callable[[int, int], Tensor], tokens: Tensor, multiple: int) -> Tensor:
    """`work(top, bottom)` for strips of token rows of (B, H, W, D), joined: the same values, a fraction of the memory.

    Only without gradients: training keeps every activation anyway, and one large product is faster there.
    """
    height, width = tokens.shape[1:3]
    rows = max(1, STRIP_TOKENS // (width * multiple)) * multiple
    if torch.is_grad_enabled() or rows >= height:
        return work(0, height)
    joined: Tensor | None = None
    for top in range(0, height, rows):
        strip = work(top, min(top + rows, height))
        joined = strip.new_empty(tokens.shape) if joined is None else joined
        joined[:, top : top + rows] = strip
    # There is at least one row.
    assert joined is not None
    return joined


class Residual(nn.Module):
    """One residual step around a sublayer F, in the order the preset names.

    post: LN(x + F(x)), the classic form; pre: x + F(LN(x)); res-post: x + LN(F(x)) (Swin v2).
    """

    def __init__(self, dim: int, sublayer: nn.Module, norm: Norm):
        super().__init__()
        self.sublayer, self.norm, self.order = sublayer, nn.LayerNorm(dim), norm

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        inside = self.norm(x) if self.order == "pre" else x
        if isinstance(self.sublayer, WindowAttention):
            change = self.sublayer(inside, inside if memory is None else memory)
        else:
            change = self.sublayer(inside)
        if self.order == "post":
            return self.norm(x + change)
        return x + (self.norm(change) if self.order == "res-post" else change)


class EncoderBlock(nn.Module):
    """H = LN(H + MHA(H)); H = LN(H + FFN(H)) (post-norm; `norm` chooses the other orders)."""

    def __init__(self, dim: int, heads: int, window: int, feed: FeedForward, norm: Norm, *, shifted: bool):
        super().__init__()
        self.attend = Residual(dim, WindowAttention(dim, heads, window, shifted=shifted), norm)
        self.feed = Residual(dim, feed, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.feed(self.attend(x))


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention to the encoder's output, FFN, each in its residual step.

    Cross-attention looks through shifted windows, self-attention through plain ones, so that every query meets
    two overlapping neighbourhoods of the image in one block.
    """

    def __init__(self, dim: int, heads: int, window: int, feed: FeedForward, norm: Norm):
        super().__init__()
        self.attend = Residual(dim, WindowAttention(dim, heads, window), norm)
        self.cross = Residual(dim, WindowAttention(dim, heads, window, shifted=True), norm)
        self.feed = Residual(dim, feed, norm)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.feed(self.cross(self.attend(x), memory))
