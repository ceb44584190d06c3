"""Tiny models that make images from text, for tests of the path to and from such models."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imgtx.models.generation import CONDITIONS, SHARED, TASK, Generation
from imgtx.models.info import ModelInfo
from imgtx.models.text_to_image import TextToImage
from imgtx.models.text_to_image_config import TextToImageConfig
from imgtx.models.weights import save_weights

WORDS = ("a", "above", "blue", "circle", "green", "in", "ink", "red", "square", "star", "style")
GENERATION = Generation(
    width=16,
    height=16,
    smallest=8,
    largest=32,
    steps=3,
    guidance=2.0,
    tokens=8,
    styles=("ink",),
    strength=0.5,
)
INFO = ModelInfo("dots", TASK, 1, multiple=8, halo=0, untiled=32 * 32, generation=asdict(GENERATION))


class Dots(nn.Module):
    """Paints noise of the row's seed in a colour of its prompt, over its start picture where it has one.

    Asserts what a model is promised: every condition, and rows of one call that agree. `calls` holds batch sizes.
    """

    def __init__(self, info: ModelInfo = INFO):
        super().__init__()
        self.info, self.digest, self.calls = info, hashlib.sha256(info.name.encode()).hexdigest(), list[int]()

    def prepare(self, conditions: dict[str, Any] | None = None) -> None:
        """Return None: no state is shared by all rows."""

    def tokens_lost(self, row: Mapping[str, Any]) -> int:
        return max(0, len(row["prompt"].split()) - GENERATION.tokens)

    def forward(self, batch: Tensor, state: None, rows: Sequence[Mapping[str, Any]] = ()) -> Tensor:
        assert len(rows) == len(batch)
        assert all({*row} == {*CONDITIONS} for row in rows)
        assert len({tuple(row[name] for name in SHARED) for row in rows}) == 1
        self.calls.append(len(rows))
        return torch.stack([self._paint(start, row) for start, row in zip(batch, rows, strict=True)])

    def _paint(self, start: Tensor, row: Mapping[str, Any]) -> Tensor:
        words = " ".join([row["prompt"], row["negative"], row["style"]])
        colour = torch.tensor([*hashlib.sha256(words.encode()).digest()[:3]])[:, None, None] / 255
        noise = torch.rand(start.shape, generator=torch.Generator().manual_seed(row["seed"]))
        made = colour * 0.8 + noise * 0.2 * row["guidance"] / (row["guidance"] + row["steps"])
        return start * (1 - row["strength"]) + made * row["strength"] if row["strength"] else made


def dots(**generation: Any) -> Dots:
    """Return the model with other offers."""
    return Dots(replace(INFO, generation=asdict(replace(GENERATION, **generation))))


def save_tiny_prompt_model(path: Path, *, seed: int = 0) -> str:
    """Save a tiny network of ours that draws 16 x 16 pixels, a different one for each seed, and return its path."""
    config = TextToImageConfig(
        side=16,
        patch=4,
        dim=16,
        heads=2,
        blocks=2,
        text_blocks=1,
        max_tokens=10,
        vocabulary=WORDS,
        styles=("ink",),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TextToImage(config)
        # It begins as the identity; so its output depends on everything.
        for name, parameter in network.named_parameters():
            if "modulation" in name or name.startswith("head") or "position_bias" in name:
                nn.init.normal_(parameter, std=0.2)
    save_weights(path, network, ModelInfo(path.stem, TASK, 1, config.multiple, 0))
    return str(path)
