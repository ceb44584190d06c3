"""Batches of a style transfer training: crops of photos, and pieces of style pictures, by step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from imgtx.training.style.spec import StyleSpec

# Crops are cut so many times as large, at most, and reduced: photos are seen near and from afar.
FARTHEST = 3.2
# Shorter sides of a style picture, in sides of a piece: strokes of three sizes.
SIZES = (1.0, 1.25, 1.5)
# In one step of so many the first content is a piece of its own style, which must stay as it is.
IDENTITY_EVERY = 4


@dataclass(frozen=True)
class StyleBatch:
    """contents (B, crop, crop, 3), style by style, and style pieces (G, side, side, 3), uint8.

    pieces: the number of each piece among all. own: whether the first content is cut from the first piece. keys: names
    of the contents.
    """

    contents: np.ndarray
    styles: np.ndarray
    pieces: tuple[int, ...]
    own: bool
    keys: tuple[str, ...]


class StyleFeed:
    """Batches as a function of seed and step. `contents` and `styles` are (H, W, 3) uint8 by name."""

    def __init__(self, spec: StyleSpec, contents: dict[str, np.ndarray], styles: dict[str, np.ndarray]):
        self.spec = spec
        self.names, self.contents = tuple(contents), tuple(contents.values())
        self.styles = tuple(styles.values())
        self._chances = chances(self.styles)

    def batch(self, step: int) -> StyleBatch:
        spec = self.spec
        rng = np.random.default_rng((spec.seed, step))
        chosen = rng.choice(len(self.styles), spec.batch // spec.per_style, p=self._chances)
        pieces = tuple(int(style) * spec.pieces + int(rng.integers(spec.pieces)) for style in chosen)
        styles = np.stack([self.piece(number) for number in pieces])
        photos = rng.integers(len(self.contents), size=spec.batch)
        contents = np.stack([cut(self.contents[photo], spec.crop, rng) for photo in photos])
        if own := step % IDENTITY_EVERY == 0:
            top, left = rng.integers(spec.style_side - spec.crop + 1, size=2)
            contents[0] = styles[0, top : top + spec.crop, left : left + spec.crop]
        return StyleBatch(contents, styles, pieces, own, tuple(self.names[photo] for photo in photos))

    def piece(self, number: int) -> np.ndarray:
        """Return a piece of a style picture, always the same: (side, side, 3) uint8."""
        style, variant = divmod(number, self.spec.pieces)
        rng, side = np.random.default_rng((7, style, variant)), self.spec.style_side
        picture = self.styles[style]
        scale = side * SIZES[variant % len(SIZES)] / min(picture.shape[:2])
        resized = resize(picture, *(max(side, round(length * scale)) for length in picture.shape[:2]))
        top, left = (int(rng.integers(length - side + 1)) for length in resized.shape[:2])
        piece = resized[top : top + side, left : left + side]
        return np.ascontiguousarray(piece[:, ::-1] if variant % 2 else piece)


def cut(photo: np.ndarray, crop: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a random square, reduced to (crop, crop, 3) uint8, mirrored or not."""
    side = int(min(*photo.shape[:2], crop * np.exp(rng.uniform(0, np.log(FARTHEST)))))
    top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    piece = resize(photo[top : top + side, left : left + side], crop, crop)
    return piece[:, ::-1] if rng.random() < 0.5 else piece


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3)."""
    if picture.shape[:2] == (height, width):
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def chances(styles: Sequence[np.ndarray]) -> np.ndarray:
    """Return how often each style is drawn: the rarer its palette, the oftener, so that no kind drowns the rest."""
    palettes = np.array([palette(style) for style in styles])
    distances = np.linalg.norm(palettes[:, None] - palettes[None], axis=-1)
    width = distances.mean() / 2 + 1e-6
    crowd = np.exp(-np.square(distances / width)).sum(1)
    return (1 / crowd) / (1 / crowd).sum()


def palette(style: np.ndarray) -> np.ndarray:
    """Return what tells a dark old master from a poster: mean and spread of lightness and of two colour axes."""
    red, green, blue = np.moveaxis(resize(style, 32, 32) / 255.0, -1, 0)
    axes = np.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue]).reshape(3, -1)
    # Colours are smaller numbers than lightness, and tell more.
    return np.concatenate([axes.mean(1), axes.std(1)]) * np.array([1, 3, 3, 1, 3, 3])
