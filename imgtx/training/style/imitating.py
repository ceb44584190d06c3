"""The objective of style transfer networks that learn from a teacher's pictures, in three trainings after one another.

`painting`: the decoder learns to paint as the teacher does from the teacher's own numbers of each style, without the
style memory. `styles`: the style encoder learns these numbers. `both`: the whole network, as it is used.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imgtx.imageops.luma import LUMA
from imgtx.models.info import ModelInfo
from imgtx.models.style_config import StyleConfig
from imgtx.models.style_transfer import StyleState, StyleTransfer
from imgtx.models.weights import Network
from imgtx.training.features.vgg16 import Vgg16
from imgtx.training.log import STRIP
from imgtx.training.objective import autocast
from imgtx.training.style.losses import root, total_variation
from imgtx.training.style.objective import StyleObjective, Targets, total
from imgtx.training.style.spec import BOTH, PAINTING, STYLES, StyleSpec
from imgtx.training.style.stylising import (
    SHIFT_EVERY,
    as_tensor,
    is_grey,
    kept_targets,
    moved_difference,
    noise_for,
    normalised_features,
    sheet,
    style_facts,
)
from imgtx.training.style.teacher_feed import TaughtBatch, TeacherFeed
from imgtx.training.style.weights import TeacherWeights

# Layers whose activations are compared: texture, not what is shown.
LAYERS = ("relu1_2", "relu2_2", "relu3_1")
# Pixels along the border of a crop that count in no part: the teacher saw what is beyond.
EDGE = 2
# Deviation of what is added to the teacher's numbers in `painting`: the style encoder will not hit them exactly.
NOISE = 0.1
# Pixels a side of the part of a crop that VGG looks at, which takes most of a step.
SEEN_SIDE = 128
# Pixels a side of the squares that colours and light are averaged over; they overlap by half.
SQUARE = 16
# How much chroma counts against light, there.
CHROMA = 4.0
# Random pixels whose colours are compared, and the directions that they are projected on.
COLOURS, COLOUR_DIRECTIONS = 4096, 8


class Imitating:
    """Learns to paint as a teacher does; `spec.teacher` says what of the network learns.

    Raises UsageError where the feature network is not built.
    """

    def __init__(self, spec: StyleSpec, feed: TeacherFeed):
        self.spec = spec
        # The style encoder learns from numbers alone.
        self._features = None if spec.teacher == STYLES else normalised_features(spec, feed)
        weights = spec.weights
        assert isinstance(weights, TeacherWeights)
        self._weights = weights
        self._of_styles: StyleObjective | None = None
        if self._features and weights.see_styles:
            self._of_styles = StyleObjective(self._features, seed=spec.seed)
        # By the number of a picture and whether it is grey, in half the memory.
        self._targets: dict[tuple[int, bool], Targets] = {}

    def network(self) -> StyleTransfer:
        return StyleTransfer(self.spec.config)

    def facts(self) -> ModelInfo:
        return style_facts(self.spec)

    def loss(self, compute: Callable[..., Tensor], batch: TaughtBatch, step: int, device: str) -> Tensor:
        generator = torch.Generator().manual_seed(self.spec.seed * 10**9 + step)
        moved = step % SHIFT_EVERY == 0 and self._weights.shift > 0
        return total(self._weights, self.parts(compute, batch, device, generator, moved=moved))

    def parts(
        self,
        compute: Any,
        batch: TaughtBatch,
        device: str,
        generator: torch.Generator,
        *,
        moved: bool = False,
    ) -> dict[str, Tensor]:
        """Return the parts of the loss. compute: the network, or compiled. moved: with the part for a moved content."""
        styles, numbers = as_tensor(batch.styles, device), torch.from_numpy(batch.numbers).to(device)
        if self.spec.teacher == STYLES:
            with autocast(self.spec.precision, device):
                _, code = compute.style(styles)
            return {"numbers": (code.float() - numbers).square().mean()}
        contents, painted = as_tensor(batch.contents, device), as_tensor(batch.painted, device)
        with autocast(self.spec.precision, device):
            if self.spec.teacher == PAINTING:
                noise = torch.randn(numbers.shape, generator=generator).to(device)
                state = without_memory(self.spec.config, numbers + NOISE * noise)
            else:
                state = compute.encode_style(styles)
            output = compute(contents, state, noise=noise_for(self.spec.config, contents, generator)).float()
        difference = (output - painted)[..., EDGE:-EDGE, EDGE:-EDGE]
        parts = {"pixels": difference.abs().mean(), "edges": total_variation(difference)}
        if self._weights.low:
            parts["low"] = difference_of_light(averaged(output), averaged(painted))
        if self._weights.colours:
            parts["colours"] = difference_of_colours(output, styles, generator)
        parts |= self._through_features(output, contents, painted, batch, generator)
        if self.spec.teacher == BOTH:
            parts["numbers"] = (state.code.float() - numbers).square().mean()
        if moved:
            first = StyleState(
                state.code[:1],
                tuple(key[:1] for key in state.keys),
                tuple(value[:1] for value in state.values),
            )
            with autocast(self.spec.precision, device):
                parts["shift"] = moved_difference(
                    lambda content: compute(content, first),
                    contents[:1],
                    self.spec.config.multiple,
                    generator,
                )
        return parts

    def _through_features(
        self,
        output: Tensor,
        contents: Tensor,
        painted: Tensor,
        batch: TaughtBatch,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Compare what VGG sees in a square of each output with the teacher's pictures, and with the styles."""
        assert self._features is not None
        self._features.to(output.device)
        side = min(SEEN_SIDE, output.shape[-1] - 2 * EDGE)
        top, left = (
            int(torch.randint(EDGE, output.shape[-1] - side - EDGE + 1, (), generator=generator))
            for _ in range(2)
        )
        own, content, wanted = (
            images[..., top : top + side, left : left + side] for images in (output, contents, painted)
        )
        parts: dict[str, Tensor] = {}
        if self._weights.seen or self._weights.look:
            parts |= difference_seen(self._features, own, wanted)
        if self._of_styles:
            grey = is_grey(self.spec, generator)
            styles = as_tensor(batch.styles, str(output.device))
            targets = kept_targets(self._of_styles, self._targets, batch.pieces, styles, grey=grey)
            of_styles = self._of_styles(own, content, targets, generator, grey=grey)
            parts |= {name: of_styles[name] for name in ("content", "moments", "sliced")}
        return parts

    @torch.no_grad()
    def score(
        self, network: Network, info: ModelInfo, valid: Sequence[TaughtBatch], folder: Path, device: str
    ) -> dict[str, float]:
        """Return the mean difference to the teacher's pictures, or numbers, over batches of one style each; draw all
        contents in all styles."""
        assert isinstance(network, StyleTransfer)
        network.to(device)
        losses, columns = [], []
        for batch in valid:
            contents, numbers = as_tensor(batch.contents, device), torch.from_numpy(batch.numbers).to(device)
            state = network.encode_style(as_tensor(batch.styles, device))
            if self.spec.teacher != BOTH:
                code = numbers if self.spec.teacher == PAINTING else state.code
                state = without_memory(self.spec.config, code)
            noise = noise_for(self.spec.config, contents, torch.Generator().manual_seed(0))
            output = network(contents, state.repeat(len(contents)), noise=noise).clamp(0, 1)
            if self.spec.teacher == STYLES:
                losses.append(float((state.code - numbers).square().mean()))
            else:
                losses.append(float((output - as_tensor(batch.painted, device)).abs().mean()))
            columns.append(output.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        sheet(valid, columns).save(folder / STRIP)
        return {"valid_loss": float(np.mean(losses))}


def without_memory(config: StyleConfig, code: Tensor) -> StyleState:
    """Return the state of styles by their code (G, S) alone: their memory is one empty token."""
    empty = code.new_zeros(1, config.heads, 1, config.dim // config.heads).expand(len(code), -1, -1, -1)
    return StyleState(code, (empty,) * config.decoder_blocks, (empty,) * config.decoder_blocks)


def averaged(images: Tensor) -> Tensor:
    """(B, 3, H, W) averaged over squares."""
    return F.avg_pool2d(images, SQUARE, SQUARE // 2)


def difference_of_light(own: Tensor, wanted: Tensor) -> Tensor:
    """L1 of the luma and, weighed by CHROMA, of what is left without it, of (B, 3, H, W)."""
    difference = own - wanted
    luma = (difference * difference.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return luma.abs().mean() + CHROMA * (difference - luma).abs().mean()


def difference_of_colours(own: Tensor, styles: Tensor, generator: torch.Generator) -> Tensor:
    """Sliced Wasserstein distance of the pixels of (B, 3, H, W) to those of their styles (B, 3, h, w).

    Half of the directions are of hue alone, three times as long: a style is known by few bright colours.
    """
    along = F.normalize(torch.randn(COLOUR_DIRECTIONS, 3, generator=generator), dim=1)
    hues = along[COLOUR_DIRECTIONS // 2 :]
    along = torch.cat([along[: COLOUR_DIRECTIONS // 2], 3 * (hues - hues.mean(1, keepdim=True))])
    ordered = []
    for images in (own, styles):
        pixels = images.flatten(2)
        chosen = torch.randint(pixels.shape[2], (COLOURS,), generator=generator)
        ordered.append((along.to(pixels) @ pixels[:, :, chosen.to(pixels.device)]).sort(dim=-1).values)
    return (ordered[0] - ordered[1]).abs().mean()


def difference_seen(features: Vgg16, own: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Compare the activations for two of (B, 3, H, W), and their means and deviations."""
    with torch.no_grad():
        there = features(wanted.to(features.dtype), LAYERS)
    seen, look = [], []
    for name, activations in features(own.to(features.dtype), LAYERS).items():
        one, other = activations.float(), there[name].float()
        seen.append((one - other).square().mean())
        variances, means = zip(
            *(torch.var_mean(x, dim=(2, 3), correction=0) for x in (one, other)), strict=True
        )
        deviations = [(variance + 1e-5).sqrt() for variance in variances]
        squares = (means[0] - means[1]).square() + (deviations[0] - deviations[1]).square()
        look.append(root(squares.mean(1)).mean())
    return {"seen": torch.stack(seen).sum(), "look": torch.stack(look).sum()}
