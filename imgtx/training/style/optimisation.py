"""Stylise one image by optimising it: what the losses of training ask for when no network limits it.

What is optimised is a pyramid of changes, from coarse to fine, at a falling rate: pixels alone become noisy long before
coarse strokes have formed. Sources: Gatys, Ecker and Bethge, A neural algorithm of artistic style (arXiv 1508.06576);
for the pyramid Kolkin, Salavon and Shakhnarovich, STROTSS (arXiv 1904.12785).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imgtx.inference.processor import this_processor
from imgtx.training.features import vgg16
from imgtx.training.optim import learning_rate
from imgtx.training.style.objective import StyleObjective, total
from imgtx.training.style.weights import StyleWeights

RATE = 0.03
# Smoother than a network has to be: single pixels answer to the losses more than any network lets them.
WEIGHTS = StyleWeights(content=2.0, smooth=6.0)
# Each level has half the side of the one before.
LEVELS = 5
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
        self.objective, self.steps, self.weights = StyleObjective(features), steps, weights or WEIGHTS

    def __call__(self, content: np.ndarray, style: np.ndarray) -> np.ndarray:
        wanted = as_tensor(content)
        targets = self.objective.targets(as_tensor(style))
        height, width = wanted.shape[2:]
        changes = [
            torch.zeros(1, 3, height >> level, width >> level, requires_grad=True) for level in range(LEVELS)
        ]
        optimizer = torch.optim.Adam(changes, lr=RATE, betas=(0.9, 0.99))
        generator = torch.Generator().manual_seed(0)
        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step / self.steps, peak=RATE, warmup=0.05)
            optimizer.zero_grad(set_to_none=True)
            pixels = changed(wanted, changes)
            total(self.weights, self.objective(pixels, wanted, targets, generator)).backward()
            optimizer.step()
        found = changed(wanted, changes).detach()[0].clamp(0, 1).mul(255).round().byte()
        return found.permute(1, 2, 0).numpy()


def changed(image: Tensor, changes: Sequence[Tensor]) -> Tensor:
    """Add changes (1, 3, h, w) of several sizes to an image (1, 3, H, W)."""
    size = image.shape[2:]
    return image + sum(
        F.interpolate(change, size, mode="bilinear", align_corners=False) for change in changes
    )


def as_tensor(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def reduced(image: Tensor) -> Tensor:
    """Return (1, 3, SAMPLE_SIDE, SAMPLE_SIDE) of an image, whatever its proportions."""
    size = (SAMPLE_SIDE, SAMPLE_SIDE)
    return F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
