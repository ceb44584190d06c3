"""Batches of a training that learns from a teacher: contents, and the pictures that the teacher painted of them.

Painting takes longer than a step. So a picture is painted when a step first asks for it, and kept in the training's
folder.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from imgtx.files import write_atomically
from imgtx.training.style.feed import chances, cut, resize
from imgtx.training.style.spec import STYLES, TAUGHT_SIDE, StyleSpec

# Of the content that the teacher sees, in pixels: the same pixels as in ours, enlarged, so that what it paints is a
# function of what our network sees.
TEACHERS_SIDE = 384
# Pixels along the border that no crop is cut from: the teacher paints a frame there.
FRAME = 10
# Share of styles that are photos, for colours that no painting has.
PHOTOS = 0.12
# Styles are cut up to so many times as large and reduced: strokes in several sizes.
LARGEST_STYLE = 1.55
# Styles that the scale of the teacher's numbers is measured on, and how far from their mean one may be, in deviations.
MEASURED, FARTHEST_NUMBER = 256, 6


class Teacher(Protocol):
    """What is learnt from, such as `imgtx.training.features.magenta.Magenta`."""

    def numbers(self, style: np.ndarray) -> np.ndarray:
        """(256, 256, 3) uint8 -> the numbers that the style is reduced to, float32."""

    def paint(self, content: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """(384, 384, 3) uint8 and the numbers of a style -> the painted picture, of the same shape."""


@dataclass(frozen=True)
class TaughtBatch:
    """contents and painted (B, crop, crop, 3), styles (B or 1, 256, 256, 3) uint8; numbers (B or 1, N) float32.

    numbers: the teacher's of each style, with mean 0 and deviation 1 over the styles. pieces: of each picture its
    number. keys: names of the contents. Without contents where the style encoder alone learns.
    """

    contents: np.ndarray
    painted: np.ndarray
    styles: np.ndarray
    numbers: np.ndarray
    pieces: tuple[int, ...]
    keys: tuple[str, ...]


class TeacherFeed:
    """Batches as a function of seed and step. `contents` and `styles` are (H, W, 3) uint8 by name; folder: of the
    training."""

    def __init__(
        self,
        spec: StyleSpec,
        contents: dict[str, np.ndarray],
        styles: dict[str, np.ndarray],
        teacher: Teacher,
        folder: Path,
    ):
        self.spec, self.teacher, self.folder = spec, teacher, folder / "teacher"
        self.contents, self.styles = tuple(contents.values()), tuple(styles.values())
        self._chances = chances(self.styles)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._mean, self._deviation = self._scale()

    def batch(self, step: int) -> TaughtBatch:
        spec, rng = self.spec, np.random.default_rng((self.spec.seed, step))
        if spec.teacher == STYLES:
            fresh = [self._style(rng) for _ in range(spec.batch)]
            none = np.empty((0, spec.crop, spec.crop, 3), np.uint8)
            return TaughtBatch(
                none, none, np.stack(fresh), self.numbers(fresh), (), (f"styles of step {step}",)
            )
        chosen = tuple(rng.choice(spec.teacher_pictures, spec.batch, replace=False).tolist())
        crops, styles, numbers = [], [], []
        for number in chosen:
            picture = self._picture(number)
            top, left = rng.integers(FRAME, TAUGHT_SIDE - FRAME - spec.crop + 1, size=2)
            both = np.stack([picture["content"], picture["painted"]])
            both = both[:, top : top + spec.crop, left : left + spec.crop]
            crops.append(both[:, :, ::-1] if rng.random() < 0.5 else both)
            styles.append(picture["style"])
            numbers.append(picture["numbers"])
        contents, painted = np.stack(crops, axis=1)
        keys = tuple(f"picture {number} of the teacher" for number in chosen)
        return TaughtBatch(contents, painted, np.stack(styles), self._scaled(np.stack(numbers)), chosen, keys)

    def numbers(self, styles: Sequence[np.ndarray]) -> np.ndarray:
        """Return the teacher's numbers of style pictures (256, 256, 3), scaled: (G, N) float32."""
        return self._scaled(np.stack([self.teacher.numbers(style) for style in styles]))

    def taught(self, contents: np.ndarray, style: np.ndarray, keys: tuple[str, ...]) -> TaughtBatch:
        """Return contents (B, 256, 256, 3) whole, all in one style (256, 256, 3)."""
        numbers = self.teacher.numbers(style)
        painted = np.stack([self._paint(content, numbers) for content in contents])
        return TaughtBatch(contents, painted, style[None], self._scaled(numbers[None]), (), keys)

    def _scaled(self, numbers: np.ndarray) -> np.ndarray:
        scaled = (numbers - self._mean) / self._deviation
        return np.clip(scaled, -FARTHEST_NUMBER, FARTHEST_NUMBER).astype(np.float32)

    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and deviation of each number over the styles; the same in each training from these styles."""
        path = self.folder / "scale.npz"
        if not path.exists():
            rng = np.random.default_rng(0)
            pieces = [cut_style(style, rng) for style in self.styles[:MEASURED]]
            found = np.stack([self.teacher.numbers(piece) for piece in pieces])
            save(path, mean=found.mean(0), deviation=found.std(0) + 1e-3)
        with np.load(path) as scale:
            return scale["mean"], scale["deviation"]

    def _picture(self, number: int) -> dict[str, np.ndarray]:
        """Return content, style and painted picture, each (256, 256, 3) uint8, and the teacher's numbers."""
        path = self.folder / f"{number:06d}.npz"
        if not path.exists():
            rng = np.random.default_rng((self.spec.seed, number, 1))
            content = cut(self.contents[rng.integers(len(self.contents))], TAUGHT_SIDE, rng)
            style = self._style(rng)
            numbers = self.teacher.numbers(style)
            painted = self._paint(content, numbers)
            save(path, content=content, painted=painted, style=style, numbers=numbers)
        with np.load(path) as picture:
            return dict(picture)

    def _paint(self, content: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        painted = self.teacher.paint(resize(content, TEACHERS_SIDE, TEACHERS_SIDE), numbers)
        # Reduced, so that its grain averages out.
        return resize(painted, *content.shape[:2])

    def _style(self, rng: np.random.Generator) -> np.ndarray:
        """Return a style that no step before had: (256, 256, 3) uint8."""
        if rng.random() < PHOTOS:
            picture = self.contents[rng.integers(len(self.contents))]
        else:
            picture = self.styles[rng.choice(len(self.styles), p=self._chances)]
        return recoloured(cut_style(picture, rng), rng)


def cut_style(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut a random piece of a style picture, mirrored or not: (256, 256, 3) uint8."""
    scale = TAUGHT_SIDE * rng.uniform(1, LARGEST_STYLE) / min(picture.shape[:2])
    resized = resize(picture, *(max(TAUGHT_SIDE, round(length * scale)) for length in picture.shape[:2]))
    top, left = (int(rng.integers(length - TAUGHT_SIDE + 1)) for length in resized.shape[:2])
    piece = resized[top : top + TAUGHT_SIDE, left : left + TAUGHT_SIDE]
    return np.ascontiguousarray(piece[:, ::-1] if rng.random() < 0.5 else piece)


def recoloured(piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return half of the pieces as they are, others in other colours: (H, W, 3) uint8."""
    kind, pixels = rng.random(), piece / 255
    if kind < 0.25:
        pixels = pixels[:, :, rng.permutation(3)]
    elif kind < 0.4:
        pixels = pixels ** np.exp(rng.normal(0, 0.35, 3))
    elif kind < 0.47:
        pixels = 1 - pixels
    elif kind < 0.52:
        pixels = pixels.mean(2, keepdims=True) * rng.uniform(0.4, 1.1, 3)
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def save(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays whole or not at all."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_atomically(path, content.getvalue(), durable=False)
