"""How near an output is to a style's strokes and to a content, seen through networks that were in no loss.

Everything is measured on grey images with equalised histograms: colours, brightness and contrast do not count, so that
a mere change of colours gains next to nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imgtx.imageops.luma import LUMA
from imgtx.training.features import inverted_residuals
from imgtx.training.features.random_filters import RandomFilters
from imgtx.training.style.losses import QUANTILES, directions

DIRECTIONS = 64
# Evenly spaced ones of a layer: sorting all of the finest takes seconds.
MOST_POSITIONS = 8192
# Layers of so many positions are compared by quantiles; coarser ones show what is there, not how it is painted.
LEAST_POSITIONS = QUANTILES

Activations = list[Tensor]


def equalised(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) in [0, 1]: the luma, every level as frequent as any other."""
    luma = np.rint(image @ np.array(LUMA)).astype(np.uint8)
    counts = np.bincount(luma.reshape(-1), minlength=256)
    # Each level becomes the middle of its ranks.
    ranks = (np.cumsum(counts) - counts / 2) / luma.size
    return ranks[luma].astype(np.float32)


@dataclass(frozen=True)
class Eye:
    """A network and how activations are compared: `weights` and random directions for each layer that is used."""

    name: str
    network: Callable[[Tensor], Activations]
    layers: tuple[int, ...]
    scales: tuple[float, ...]
    along: tuple[Tensor, ...]

    def look(self, image: np.ndarray) -> Activations:
        """Return all activations for (H, W, 3) uint8, each (C, H', W')."""
        grey = torch.from_numpy(equalised(image))
        with torch.no_grad():
            return [x[0] for x in self.network(grey.expand(1, 3, *grey.shape))]

    def signature(self, seen: Activations) -> list[Tensor]:
        """Return the quantiles (K, Q) of the projections at each layer that is used."""
        return [
            quantiles(seen[layer], along) / scale
            for layer, along, scale in zip(self.layers, self.along, self.scales, strict=True)
        ]


def eyes(pictures: Sequence[np.ndarray]) -> list[Eye]:
    """Return the networks to measure by, their layers weighed alike over `pictures`, (H, W, 3) uint8 each.

    UsageError that names the command to build them with where they are not in the user's cache.
    """
    return [_eye(name, network, pictures) for name, network in networks().items()]


def networks() -> dict[str, Callable[[Tensor], Activations]]:
    """Load the networks; raises as `eyes`."""
    return {
        "lite0": inverted_residuals.load(inverted_residuals.EFFICIENTNET_LITE0),
        "mobilenet": inverted_residuals.load(inverted_residuals.MOBILENET_V2),
        "random": RandomFilters(),
    }


def _eye(name: str, network: Callable[[Tensor], Activations], pictures: Sequence[np.ndarray]) -> Eye:
    plain = Eye(name, network, (), (), ())
    seen = [plain.look(picture) for picture in pictures]
    layers = [
        number
        for number in range(len(seen[0]))
        if min(found[number][0].numel() for found in seen) >= LEAST_POSITIONS
    ]
    generator = torch.Generator().manual_seed(0)
    scales = [
        float(torch.stack([found[n].square().mean() for found in seen]).mean().sqrt()) + 1e-6 for n in layers
    ]
    along = [directions(len(seen[0][n]), DIRECTIONS, generator) for n in layers]
    return Eye(name, network, tuple(layers), tuple(scales), tuple(along))


def quantiles(activations: Tensor, along: Tensor) -> Tensor:
    """Project (C, H, W) on `along` (C, K); return means over equal shares of the sorted positions, (K, Q)."""
    positions = activations.flatten(1)
    positions = positions[:, :: max(1, positions.shape[1] // MOST_POSITIONS)]
    ordered = (positions.T @ along).T.sort(dim=-1).values
    return F.adaptive_avg_pool1d(ordered[None], QUANTILES)[0]


def sliced_distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Return the sliced Wasserstein distance of two signatures, the mean over their layers."""
    return float(np.mean([float((a - b).square().mean().sqrt()) for a, b in zip(one, other, strict=True)]))


def contents_vector(seen: Activations) -> Tensor:
    """Return what is shown, and where: the deepest activations, of length 1."""
    return F.normalize(seen[-1].flatten(), dim=0)
