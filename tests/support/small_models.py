"""Models small enough to compute by hand, for tests of the path to and from a model."""

import numpy as np
import torch
from torch import nn

from imgtx.models.info import ModelInfo

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]
INFO = ModelInfo("fake", "super-resolution", scale=2, multiple=4, halo=4)


class Windows(nn.Module):
    """Mixes each pixel with its 4x4 window's mean and its right neighbour, with nearest enlargement.

    Sees pixels at most 4 away; all weights are powers of two, so that float32 sums are exact for 8 bits.
    """

    def __init__(self, info: ModelInfo = INFO):
        super().__init__()
        self.info = info
        self.calls: list[tuple[int, ...]] = []

    def prepare(self, conditions):
        return conditions.get("offset", 0.0)

    def forward(self, batch, state):
        assert batch.dtype == torch.float32
        assert batch.shape[2] % self.info.multiple == 0
        assert batch.shape[3] % self.info.multiple == 0
        self.calls.append(tuple(batch.shape))
        means = nn.functional.avg_pool2d(batch, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
        right = nn.functional.pad(batch, (0, 1))[..., 1:]
        mixed = batch / 2 + means / 4 + right / 4 + state
        return mixed.repeat_interleave(self.info.scale, 2).repeat_interleave(self.info.scale, 3)


class Hungry(Windows):
    """Runs out of memory above `limit` pixels in one call."""

    def __init__(self, limit: int, error: Exception, info: ModelInfo = INFO):
        super().__init__(info)
        self.limit, self.error = limit, error

    def forward(self, batch, state):
        if batch.shape[0] * batch.shape[2] * batch.shape[3] > self.limit:
            raise self.error
        return super().forward(batch, state)


class Tinted(Hungry):
    """Adds to each image of a batch the `levels` of 255 in its conditions."""

    def __init__(self, limit: int = 10**9, info: ModelInfo = INFO):
        super().__init__(limit, OUT_OF_MEMORY[1], info)
        self.rows: list[int] = []

    def forward(self, batch, state, rows=()):
        output = super().forward(batch, state)
        assert len(rows) == len(batch)
        self.rows.append(len(rows))
        return output + torch.tensor([row["levels"] / 255 for row in rows])[:, None, None, None]


class Nearest(nn.Module):
    """Enlarges to the nearest pixel: the output is known without arithmetic."""

    def __init__(self, info: ModelInfo = INFO):
        super().__init__()
        self.info = info

    def prepare(self, conditions):
        return None

    def forward(self, batch, state):
        return batch.repeat_interleave(self.info.scale, 2).repeat_interleave(self.info.scale, 3)


def noise(*shape: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape, dtype)
