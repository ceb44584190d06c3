"""Noise that is a function of the place: tiles of an image that overlap get the same noise where they do."""

import hashlib

import torch
from torch import Tensor

# Positions a side that are drawn from one generator.
BLOCK = 64


def noise_at(seed: str, shape: tuple[int, int, int], top: int, left: int) -> Tensor:
    """Return the normal noise of a window of an endless plane, (C, H, W) float32 on the CPU.

    seed: which plane. shape: C, H, W. top, left: the window's first row and column, in positions of the noise.
    """
    channels, height, width = shape
    first_row, first_column = top // BLOCK, left // BLOCK
    rows = range(first_row, (top + height - 1) // BLOCK + 1)
    columns = range(first_column, (left + width - 1) // BLOCK + 1)
    whole = torch.cat(
        [torch.cat([_block(seed, r, c, channels) for c in columns], dim=2) for r in rows], dim=1
    )
    top, left = top - first_row * BLOCK, left - first_column * BLOCK
    return whole[:, top : top + height, left : left + width]


def _block(seed: str, row: int, column: int, channels: int) -> Tensor:
    digest = hashlib.sha256(f"{seed} {row} {column}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn((channels, BLOCK, BLOCK), generator=generator)
