"""What style transfer is trained for: the content's structure in the style's statistics, seen through VGG-16.

The statistics of a style do not change during a training: `targets` computes them, and a training keeps them.
"""

from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor

from imgtx.training.features.vgg16 import Vgg16
from imgtx.training.style.grey import equalised
from imgtx.training.style.losses import (
    CONTENT_LAYERS,
    STYLE_LAYERS,
    LayerStatistics,
    content_distance,
    directions,
    grouped,
    moment_distance,
    sliced_distance,
    statistics,
    total_variation,
)
from imgtx.training.style.weights import StyleWeights, TeacherWeights

# Directions that styles are projected on; each step compares some of them.
DIRECTIONS = 128
DIRECTIONS_A_STEP = 16
# Of one style picture, whose statistics are computed once.
STYLE_POSITIONS = 8192

Targets = dict[str, LayerStatistics]


def total(weights: StyleWeights | TeacherWeights, parts: Mapping[str, Tensor]) -> Tensor:
    """Return the weighted sum of the parts that are given."""
    weighted = [getattr(weights, f.name) * parts[f.name] for f in fields(weights) if f.name in parts]
    return torch.stack(weighted).sum()


class StyleObjective:
    """The loss of (B, 3, H, W) outputs, B = G R: R contents for each of G styles, style by style.

    Each style's contents and each style picture have 128 x 128 pixels or a multiple of that, so that the deepest layer
    has a position for every quantile. features: VGG-16 after `normalise_activations`, in any floating dtype.
    """

    def __init__(self, features: Vgg16, *, seed: int = 0):
        self.features = features
        generator = torch.Generator().manual_seed(seed)
        widths = {name: features.channels(name) for name in STYLE_LAYERS}
        self.along = {name: directions(width, DIRECTIONS, generator) for name, width in widths.items()}

    def activations(self, images: Tensor, *, grey: bool = False) -> dict[str, Tensor]:
        images = equalised(images) if grey else images
        return self.features(images.to(self.features.dtype), {*CONTENT_LAYERS, *STYLE_LAYERS})

    @torch.no_grad()
    def targets(self, styles: Tensor, *, grey: bool = False) -> Targets:
        """Return the statistics of style pictures (G, 3, H, W) at each layer, for all directions."""
        found = self.activations(styles, grey=grey)
        return {
            name: statistics(grouped(found[name], 1), self.along[name], most=STYLE_POSITIONS)
            for name in STYLE_LAYERS
        }

    def __call__(
        self,
        output: Tensor,
        content: Tensor,
        targets: Targets,
        generator: torch.Generator | None = None,
        *,
        grey: bool = False,
    ) -> dict[str, Tensor]:
        """Return the parts of the loss, each a mean over images or styles, but for the identity.

        `generator` chooses the directions of this step. grey: whether grey images with equalised levels are compared;
        the targets are of such then.
        """
        per_style = len(output) // len(targets[STYLE_LAYERS[0]].mean)
        with torch.no_grad():
            wanted = self.activations(content, grey=grey)
        own = self.activations(output, grey=grey)
        chosen = torch.randperm(DIRECTIONS, generator=generator)[:DIRECTIONS_A_STEP]
        structure = [content_distance(own[name].float(), wanted[name].float()) for name in CONTENT_LAYERS]
        moments, sliced = [], []
        for name in STYLE_LAYERS:
            seen = statistics(grouped(own[name], per_style), self.along[name][:, chosen])
            style = targets[name]._replace(quantiles=targets[name].quantiles[:, chosen])
            moments.append(moment_distance(seen, style))
            sliced.append(sliced_distance(seen, style))
        outside = (output - output.clamp(0, 1)).abs().mean()
        return {
            "content": torch.stack(structure).sum(0).mean(),
            "moments": torch.stack(moments).sum(0).mean(),
            "sliced": torch.stack(sliced).sum(0).mean(),
            "smooth": total_variation(output) + 10 * outside,
        }
