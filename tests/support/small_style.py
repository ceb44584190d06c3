"""A style transfer model of a few layers, and pictures to give it as styles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from imgtx.models.info import ModelInfo
from imgtx.models.style_config import StyleConfig
from imgtx.models.style_model import StyleModel, look_at_style
from imgtx.models.style_transfer import StyleTransfer
from imgtx.models.weight_file import STYLE_TASK
from imgtx.models.weights import load_model, save_weights

TINY = StyleConfig(
    dim=16, style_dim=16, heads=2, window=4, patch=4, encoder_blocks=1, decoder_blocks=1, mix_blocks=1, style_blocks=1,
    merged_blocks=1, detail_channels=4, half_channels=8, ffn_ratio=1.0, code=8,
)  # fmt: skip
# Of TINY: measured on noise, on which it reaches further than on photos.
HALO = 48


def save_tiny_style(path: Path, *, seed: int = 0) -> str:
    """Save a small model whose outputs differ from style to style, another for each seed, and return its path."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = StyleTransfer(TINY)
        for name, parameter in network.named_parameters():
            if "linear.weight" in name:
                torch.nn.init.normal_(parameter, std=0.12)
    save_weights(path, network, ModelInfo(path.stem, STYLE_TASK, 1, TINY.multiple, halo=HALO))
    return str(path)


def save_fitted_style(path: Path, name: str = "monet") -> str:
    """Save the model of `save_tiny_style` as if it had been fitted to `painting(0)`, and return its path."""
    general = load_model(save_tiny_style(path))
    assert isinstance(general, StyleModel)
    own = look_at_style(general.network, painting(0))
    save_weights(path, general.network, replace(general.info, style=name), own=own)
    return str(path)


def painting(seed: int, height: int = 70, width: int = 90, channels: int = 3) -> np.ndarray:
    """Return strokes in two colours: (height, width, channels) uint8, another picture for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x * rng.uniform(0.1, 0.6) + y * rng.uniform(0.1, 0.6)) > 0
    colours = rng.integers(0, 256, (2, channels))
    return np.where(waves[..., None], colours[0], colours[1]).astype(np.uint8)


class Mixer:
    """Paints by mixing contents with the mean colour of a style, `share` of it; counts what it painted."""

    def __init__(self, share: float = 0.5):
        self.share, self.painted = share, 0

    def numbers(self, style: np.ndarray) -> np.ndarray:
        """Return the mean colour as the first three of 100 numbers, the others without meaning."""
        mean = style.mean((0, 1)) / 255
        return np.concatenate([mean, np.outer(mean, np.linspace(1, 2, 33)).reshape(-1)[:97]]).astype(
            np.float32
        )

    def paint(self, content: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Return (H, W, 3) uint8 of the same shape."""
        self.painted += 1
        return np.rint(content * (1 - self.share) + 255 * numbers[:3] * self.share).astype(np.uint8)
