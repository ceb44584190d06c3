"""Losses of style transfer on the activations of a feature network, and the statistics of styles that they need.

Images of one style are judged together: what must look like the style is all of them, not each crop, which may show
nothing but sky.

Shape legend: B batch, G styles, R images of each style, B = G R, C channels, H and W height and width of the
activations, N positions, K directions, Q quantiles.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CONTENT_LAYERS = ("relu3_1", "relu4_1")
STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_1", "relu4_1")
QUANTILES = 256
# Random positions that are looked at; a multiple of QUANTILES.
POSITIONS = 4096


class LayerStatistics(NamedTuple):
    """What is compared at one layer: mean, deviation (G, C) and quantiles of projections (G, K, Q)."""

    mean: Tensor
    deviation: Tensor
    quantiles: Tensor


def directions(channels: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` random unit vectors, (C, K)."""
    return F.normalize(torch.randn(channels, count, generator=generator), dim=0)


def statistics(activations: Tensor, along: Tensor, most: int = POSITIONS) -> LayerStatistics:
    """Statistics of (G, N, C), and of projections on `along` (C, K); N is a multiple of QUANTILES.

    A quantile is the mean over its share of the sorted positions, so that it does not depend on their number. At most
    `most` random positions are looked at.
    """
    if activations.shape[1] > most:
        activations = activations[:, torch.randperm(activations.shape[1])[:most]]
    activations = activations.float()
    variance, mean = torch.var_mean(activations, dim=1, correction=0)
    projected = (activations @ along).mT.sort(dim=-1).values  # G, K, N
    return LayerStatistics(mean, (variance + 1e-5).sqrt(), projected.unflatten(-1, (QUANTILES, -1)).mean(-1))


def grouped(activations: Tensor, per_style: int) -> Tensor:
    """(B, C, H, W), style by style, -> (G, R H W, C)."""
    return activations.permute(0, 2, 3, 1).reshape(len(activations) // per_style, -1, activations.shape[1])


def moment_distance(own: LayerStatistics, style: LayerStatistics) -> Tensor:
    """Distance of means and deviations (Huang and Belongie 2017) of each style: (G,)."""
    squares = (own.mean - style.mean).square() + (own.deviation - style.deviation).square()
    return root(squares.mean(-1))


def sliced_distance(own: LayerStatistics, style: LayerStatistics) -> Tensor:
    """Sliced Wasserstein distance (Heitz et al. 2020) of each style: (G,)."""
    return root((own.quantiles - style.quantiles).square().mean((-2, -1)))


def root(squares: Tensor) -> Tensor:
    """Square root, so that styles far from photos do not drown the rest; smooth at 0."""
    return (squares + 1e-3).sqrt()


def normalised(activations: Tensor) -> Tensor:
    """(B, C, H, W) with mean 0 and deviation 1 of every channel of every image: structure without look."""
    variance, mean = torch.var_mean(activations, dim=(2, 3), correction=0, keepdim=True)
    return (activations - mean) * (variance + 1e-3).rsqrt()


def content_distance(own: Tensor, content: Tensor) -> Tensor:
    """Mean squared difference of normalised activations (B, C, H, W), of each image: (B,); 2 if unrelated."""
    return (normalised(own) - normalised(content)).square().mean((1, 2, 3))


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of (B, C, H, W)."""
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()
