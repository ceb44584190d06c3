"""The objective of style transfer networks in the training loop, scored by its loss on other photos and styles."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgtx.models.info import ModelInfo
from imgtx.models.style_config import StyleConfig
from imgtx.models.style_transfer import StyleTransfer
from imgtx.models.weight_file import STYLE_TASK
from imgtx.models.weights import Network
from imgtx.training.features import vgg16
from imgtx.training.feeds import Feed
from imgtx.training.log import STRIP
from imgtx.training.objective import autocast
from imgtx.training.style.feed import StyleBatch, StyleFeed
from imgtx.training.style.losses import LayerStatistics, total_variation
from imgtx.training.style.objective import StyleObjective, Targets, total
from imgtx.training.style.spec import StyleSpec

# Every so many steps the first content is run a second time, moved.
SHIFT_EVERY = 3
# Pixels from the border where a moved content has other neighbours.
SHIFT_BORDER = 32
# Batches whose activations are normalised to 1.
SAMPLED = 8


class Stylising:
    """Learns to give photos the look of style pictures. Raises UsageError where the feature network is not built."""

    def __init__(self, spec: StyleSpec, feed: StyleFeed):
        self.spec = spec
        self._features = normalised_features(spec, feed)
        self.objective = StyleObjective(self._features, seed=spec.seed)
        # By the number of a piece and whether it is grey, in half the memory.
        self._targets: dict[tuple[int, bool], Targets] = {}

    def network(self) -> StyleTransfer:
        return StyleTransfer(self.spec.config)

    def facts(self) -> ModelInfo:
        return style_facts(self.spec)

    def loss(self, compute: Callable[..., Tensor], batch: StyleBatch, step: int, device: str) -> Tensor:
        self._features.to(device)
        generator = torch.Generator().manual_seed(self.spec.seed * 10**9 + step)
        parts = self.parts(compute, batch, device, generator)
        if step % SHIFT_EVERY == 0 and self.spec.weights.shift:
            parts["shift"] = self._shifted(compute, batch, device, generator)
        return total(self.spec.weights, parts)

    def parts(
        self, compute: Any, batch: StyleBatch, device: str, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the parts of the loss that one run of the network gives; compute: the network, or compiled."""
        contents, styles = as_tensor(batch.contents, device), as_tensor(batch.styles, device)
        with autocast(self.spec.precision, device):
            state = compute.encode_style(styles).repeat(len(contents) // len(styles))
            output = compute(contents, state, noise=noise_for(self.spec.config, contents, generator)).float()
        grey = is_grey(self.spec, generator)
        targets = kept_targets(self.objective, self._targets, batch.pieces, styles, grey=grey)
        parts = self.objective(output, contents, targets, generator, grey=grey)
        if batch.own:
            parts["identity"] = (output[0] - contents[0]).abs().mean()
        return parts

    def _shifted(self, compute: Any, batch: StyleBatch, device: str, generator: torch.Generator) -> Tensor:
        """Return how much the output depends on where patches and attention windows are."""
        content, style = as_tensor(batch.contents[:1], device), as_tensor(batch.styles[:1], device)
        with autocast(self.spec.precision, device):
            state = compute.encode_style(style)
            return moved_difference(
                lambda moved: compute(moved, state), content, self.spec.config.multiple, generator
            )

    def score(
        self, network: Network, info: ModelInfo, valid: Sequence[StyleBatch], folder: Path, device: str
    ) -> dict[str, float]:
        """Return the mean loss over batches of one style each, and draw all contents in all styles."""
        assert isinstance(network, StyleTransfer)
        network.to(device)
        losses, columns = [], []
        with torch.no_grad():
            for batch in valid:
                generator = torch.Generator().manual_seed(0)
                losses.append(float(total(self.spec.weights, self.parts(network, batch, device, generator))))
                state = network.encode_style(as_tensor(batch.styles, device))
                contents = as_tensor(batch.contents, device)
                noise = noise_for(self.spec.config, contents, generator)
                output = network(contents, state.repeat(len(contents)), noise=noise).clamp(0, 1)
                output = output.mul(255).round().byte()
                columns.append(output.permute(0, 2, 3, 1).cpu().numpy())
        sheet(valid, columns).save(folder / STRIP)
        return {"valid_loss": float(np.mean(losses))}


def normalised_features(spec: StyleSpec, feed: Feed) -> vgg16.Vgg16:
    """Return the feature network, its activations normalised over the first contents and styles of a feed."""
    features = vgg16.load()
    batches = [feed.batch(step) for step in range(SAMPLED)]
    crop = spec.crop
    sample = [images for batch in batches for images in (batch.contents, batch.styles[:, :crop, :crop])]
    vgg16.normalise_activations(features, as_tensor(np.concatenate(sample)))
    return features.bfloat16() if spec.precision == "bfloat16" else features


def is_grey(spec: StyleSpec, generator: torch.Generator | None) -> bool:
    """Whether this step compares grey images."""
    return float(torch.rand((), generator=generator)) < spec.grey


def kept_targets(
    objective: StyleObjective,
    kept: dict[tuple[int, bool], Targets],
    pieces: Sequence[int],
    styles: Tensor,
    *,
    grey: bool,
) -> Targets:
    """Return the statistics of style pictures (G, 3, H, W), computed unless `kept` has them by a piece's number."""
    for place, number in enumerate(pieces):
        # Validation's pieces have negative numbers of their own.
        if (number, grey) not in kept:
            found = objective.targets(styles[place : place + 1], grey=grey)
            kept[number, grey] = {
                name: LayerStatistics(*(part.half() for part in layer)) for name, layer in found.items()
            }
    return {
        name: LayerStatistics(
            *(
                torch.cat([kept[number, grey][name][part] for number in pieces]).float()
                for part in range(len(LayerStatistics._fields))
            )
        )
        for name in kept[pieces[0], grey]
    }


def style_facts(spec: StyleSpec) -> ModelInfo:
    multiple = spec.config.multiple
    # The halo is measured when the weights are packaged; two windows until then.
    return ModelInfo(spec.name, STYLE_TASK, 1, multiple, halo=2 * multiple, licence=spec.licence)


def noise_for(config: StyleConfig, contents: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return the noise that the network takes with contents (B, 3, H, W)."""
    shape = len(contents), *config.noise_shape(*contents.shape[2:])
    return torch.randn(shape, generator=generator).to(contents)


def moved_difference(
    paint: Callable[[Tensor], Tensor], content: Tensor, limit: int, generator: torch.Generator
) -> Tensor:
    """Return how much what is painted depends on where patches and windows are: what changes where the content
    (B, 3, H, W) is moved by 1 to `limit` - 1 pixels down and right.

    paint: the network without noise, which would have to move along, by less than its own grid.
    """
    # Not in whole patches: their grid shows too.
    down, right = (int(move) for move in torch.randint(1, limit, (2,), generator=generator))
    still = paint(content).float()
    moved = paint(content.roll((down, right), (2, 3))).float().roll((-down, -right), (2, 3))
    difference = (moved - still)[..., SHIFT_BORDER:-SHIFT_BORDER, SHIFT_BORDER:-SHIFT_BORDER]
    return difference.abs().mean() + total_variation(difference)


def as_tensor(images: np.ndarray, device: str = "cpu") -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float() / 255


class Shown(Protocol):
    """What a contact sheet shows of a batch: contents (B, side, side, 3), and its style (1, H, W, 3), uint8."""

    @property
    def contents(self) -> np.ndarray: ...

    @property
    def styles(self) -> np.ndarray: ...


def sheet(valid: Sequence[Shown], columns: Sequence[np.ndarray]) -> Image.Image:
    """Draw a contact sheet: the contents in the first column, then one column a style, its picture on top."""
    contents = valid[0].contents
    side = contents.shape[1]
    first = np.concatenate([np.full((side, side, 3), 255, np.uint8), *contents])
    drawn = [first]
    for batch, outputs in zip(valid, columns, strict=True):
        style = Image.fromarray(batch.styles[0]).resize((side, side), Image.Resampling.LANCZOS)
        drawn.append(np.concatenate([np.asarray(style), *outputs]))
    return Image.fromarray(np.concatenate(drawn, axis=1))
