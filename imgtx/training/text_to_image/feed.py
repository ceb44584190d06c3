"""Batches of pictures with captions: scenes drawn new for every batch, mixed with captioned pictures."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imgtx.models.text_to_image_tokenizer import PAD, Tokenizer
from imgtx.training.scenes.captions import caption, random_description
from imgtx.training.scenes.description import COLOURS
from imgtx.training.scenes.drawing import SIDE, draw
from imgtx.training.text_to_image.captioned import Subject, caption_of, composite, held_out

# How often a picture with a skin tone comes, beside one without: they differ in little.
TONED_SHARE = 0.08
# Levels by which the background of a captioned picture may differ from its colour.
BACKGROUND_JITTER = 12


class CaptionedBatch(NamedTuple):
    """pictures (B, 64, 64, 3) uint8; tokens (B, T) int64, padded to the longest of the batch."""

    pictures: np.ndarray
    tokens: np.ndarray
    captions: list[str]

    @property
    def keys(self) -> list[str]:
        """What errors call the pictures."""
        return self.captions


class CaptionedFeed:
    """Batches as a pure function of the step, so that a training can continue where it stopped.

    pictures: (N, 64, 64, 4) uint8, which may be a memory map, with a subject each; those held out are left out.
    scene_share: how many of a batch are procedural scenes, 0 to 1.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        pictures: np.ndarray,
        subjects: Sequence[Subject],
        *,
        batch: int,
        scene_share: float,
        seed: int = 0,
    ):
        self.tokenizer, self.pictures, self.subjects = tokenizer, pictures, subjects
        self.size, self.seed = batch, seed
        weights = [0.0 if held_out(s) else TONED_SHARE if s.toned else 1.0 for s in subjects]
        self._limits = np.cumsum(weights)
        self.scene_share = scene_share if len(subjects) and self._limits[-1] > 0 else 1.0

    def batch(self, step: int) -> CaptionedBatch:
        rng = np.random.default_rng((self.seed, step))
        scenes = round(self.size * self.scene_share)
        made = [self._scene(rng) if i < scenes else self._picture(rng) for i in range(self.size)]
        captions = [text for _, text in made]
        return CaptionedBatch(
            np.stack([picture for picture, _ in made]), padded(self.tokenizer, captions), captions
        )

    def _scene(self, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        description = random_description(rng)
        return draw(description, rng), caption(description, rng)

    def _picture(self, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        at = int(np.searchsorted(self._limits, rng.random() * self._limits[-1], side="right"))
        text, background = caption_of(self.subjects[at], rng)
        colour = np.array(COLOURS[background] if background else (255, 255, 255))
        if background:
            colour += rng.integers(-BACKGROUND_JITTER, BACKGROUND_JITTER + 1, 3)
        picture = composite(self.pictures[at], colour.clip(0, 255))
        assert picture.shape == (SIDE, SIDE, 3)
        return picture, text


def padded(tokenizer: Tokenizer, captions: Sequence[str]) -> np.ndarray:
    """Return token numbers (B, T), padded to the longest."""
    rows = [tokenizer(text).numbers for text in captions]
    tokens = np.full((len(rows), max(map(len, rows))), PAD, np.int64)
    for row, numbers in zip(tokens, rows, strict=True):
        row[: len(numbers)] = numbers
    return tokens
