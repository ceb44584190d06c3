"""Stylise one image by optimising its pixels: what the losses of training ask for when no network limits it.

Source: Gatys, Ecker and Bethge, A neural algorithm of artistic style (arXiv 1508.06576).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imgtx.inference.processor import this_processor
from imgtx.training.features import vgg16
from imgtx.training.style_objective import StyleObjective, total
from imgtx.training.style_weights import StyleWeights

RATE = 0.02
# What the features are normalised over: so many pixels a side of the first pictures.
SAMPLE_SIDE, SAMPLES = 128, 32


class Optimisation:
    """Gives (H, W, 3) uint8 images, sides multiples of 128, the look of (H, W, 3) styles of such sides.

    pictures: contents and styles that activations are normalised over, (H, W, 3) uint8. In bfloat16 where the
    processor computes it. Raises UsageError where the feature network is not built.
    """

    def __init__(self, pictures: Sequence[np.ndarray], *, steps: int, weights: StyleWeights | None = None):
        features = vgg16.load()
        sample = torch.cat([reduced(as_tensor(picture)) for picture in pictures[:SAMPLES]])
        vgg16.normalise_activations(features, sample)
        if "bfloat16" not in this_processor().emulated:
            features.bfloat16()
        self.objective, self.steps, self.weights = StyleObjective(features), steps, weights or StyleWeights()

    def __call__(self, content: np.ndarray, style: np.ndarray) -> np.ndarray:
        wanted = as_tensor(content)
        targets = self.objective.targets(as_tensor(style))
        pixels = wanted.clone().requires_grad_()
        optimizer = torch.optim.Adam([pixels], lr=RATE, betas=(0.9, 0.99))
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.steps):
            optimizer.zero_grad(set_to_none=True)
            total(self.weights, self.objective(pixels, wanted, targets, generator)).backward()
            optimizer.step()
        found = pixels.detach()[0].clamp(0, 1).mul(255).round().byte()
        return found.permute(1, 2, 0).numpy()


def as_tensor(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def reduced(image: Tensor) -> Tensor:
    """Return (1, 3, SAMPLE_SIDE, SAMPLE_SIDE) of an image, whatever its proportions."""
    size = (SAMPLE_SIDE, SAMPLE_SIDE)
    return F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
