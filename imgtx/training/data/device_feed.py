"""Crops cut on the device: all images are in its memory, and a step sends a few numbers there.

The places are those that `imgtx.training.data.crops.Sampler` draws on the host, so a training sees the same crops
wherever they are cut. Only for crops that are cut out of the images' own pairs: degraded crops are made on the host.

Shape legend: P pixels of all images together, B crops in a batch, n a crop's side.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imgtx.training.data.crops import Sampler, turn
from imgtx.training.data.pairs import Pair


@dataclass(frozen=True)
class DeviceBatch:
    """As `crops.Batch`, on the device: uint8, small (B, n, n, 3) and clean (B, scale n, scale n, 3)."""

    keys: tuple[str, ...]
    small: Tensor
    clean: Tensor


class DeviceFeed:
    """The batches of a sampler, cut on the device."""

    def __init__(self, sampler: Sampler, device: str):
        self._sampler, self._device = sampler, device
        self._number = {id(pair): number for number, pair in enumerate(sampler.pairs)}
        crop, scale = sampler.settings.crop, sampler.pairs[0].scale
        self._small = DeviceImages([pair.small for pair in sampler.pairs], crop, device)
        self._clean = DeviceImages([pair.clean for pair in sampler.pairs], scale * crop, device)
        self._scale = scale

    @staticmethod
    def fits(sampler: Sampler) -> bool:
        """Return whether the sampler's crops can be cut on a device."""
        return sampler.settings.only_cut

    def batch(self, step: int) -> DeviceBatch:
        places = self._sampler.places(step)
        keys = tuple(pair.key for pair, _ in places)
        rows = [[self._of(pair), p.top, p.left, p.turns + 4 * p.mirrored] for pair, p in places]
        wanted = torch.tensor(rows).to(self._device, non_blocking=True)
        scaled = wanted * torch.tensor([1, self._scale, self._scale, 1], device=self._device)
        return DeviceBatch(keys, self._small.cut(wanted), self._clean.cut(scaled))

    def _of(self, pair: Pair) -> int:
        return self._number[id(pair)]


class DeviceImages:
    """Images of any sizes as one array of pixels on the device, cropped by a single gather."""

    def __init__(self, images: list[np.ndarray], side: int, device: str):
        pixels = np.concatenate([image.reshape(-1, 3) for image in images])
        # (P, 3): the pixels of all images, one image after the other.
        self._pixels = torch.from_numpy(pixels).to(device)
        sizes = np.array([image.shape[0] * image.shape[1] for image in images])
        self._first = torch.from_numpy(np.cumsum(sizes) - sizes).to(device)
        self._width = torch.tensor([image.shape[1] for image in images], device=device)
        rows, columns = np.indices((side, side))
        seen = [(turn(rows, k % 4, k > 3), turn(columns, k % 4, k > 3)) for k in range(8)]
        # (8, n, n): the crop's coordinates in each of the eight symmetries.
        self._rows = torch.from_numpy(np.stack([r for r, _ in seen])).to(device)
        self._columns = torch.from_numpy(np.stack([c for _, c in seen])).to(device)

    def cut(self, wanted: Tensor) -> Tensor:
        """Cut crops: (B, 4) of image, top, left, symmetry -> (B, n, n, 3) uint8."""
        image, top, left, symmetry = (column[:, None, None] for column in wanted.unbind(1))
        # (B, n, n).
        row = self._rows[symmetry[:, 0, 0]] + top
        column = self._columns[symmetry[:, 0, 0]] + left
        return self._pixels[self._first[image] + row * self._width[image] + column]
