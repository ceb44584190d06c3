"""Training samples: where to cut, and the degraded partner of each cut.

A batch is a pure function of (seed, step): a resumed run sees exactly the crops that an uninterrupted one sees.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from imgtx.degradations.base import Degradation
from imgtx.degradations.bicubic import BICUBIC
from imgtx.degradations.dead_leaves import dead_leaves
from imgtx.degradations.sharpness import SharpnessAugmentation
from imgtx.training.data.pairs import Pair, make_pair

CROP_CHOICES = ("higher_gradient", "energy", "uniform")
# Every LEAVES_STEPS steps a new procedural picture of LEAVES_SIDE pixels takes the place of the oldest of LEAVES_KEPT:
# drawing one costs as much as training on four crops.
LEAVES_SIDE, LEAVES_STEPS, LEAVES_KEPT = 512, 48, 4
LEAVES_KEY = "dead leaves"
# Reduced pixels between the places that "energy" chooses from.
PLACES_APART = 8


@dataclass(frozen=True)
class Batch:
    """Crops of the images `keys`: small (B, crop, crop, 3) and clean (B, scale crop, scale crop, 3).

    In levels of 255: clean is uint8, small too, or float32 where noise is measured in floats. With holes small has the
    mask as a fourth channel.
    """

    keys: tuple[str, ...]
    small: np.ndarray
    clean: np.ndarray


@dataclass(frozen=True)
class CropPlacement:
    """A crop's top left corner in the reduced image, and which of the square's eight symmetries it is seen in.

    First `turns` quarter turns against the clock, then, if `mirrored`, left and right change sides.
    """

    top: int
    left: int
    turns: int
    mirrored: bool


@dataclass(frozen=True)
class CropSettings:
    """How crops are made: `crop` reduced pixels a side, placed by `choice`, degraded by `degradation`.

    choice: "higher_gradient" takes, of two random places, the one with more gradient; "energy" draws places in
    proportion to gradient energy; "uniform" takes any place. damage: the degradation's settings, by default its own.
    procedural_share: the share of crops that come from dead leaves. sharpness: changes the clean side first.
    """

    crop: int
    choice: str = "higher_gradient"
    degradation: Degradation = BICUBIC
    damage: Any = None
    procedural_share: float = 0.0
    sharpness: SharpnessAugmentation = field(default_factory=SharpnessAugmentation)

    @property
    def only_cut(self) -> bool:
        """Whether both sides of every crop are cut out of the images' own pairs."""
        return self.degradation.exact and not self.procedural_share and not self.sharpness


class DeadLeavesSource:
    """Dead leaves as training images: a choice of LEAVES_KEPT at each step, a function of `seed` and step."""

    def __init__(self, seed: int, scale: int, crop: int):
        self._seed, self._scale, self._side = seed, scale, max(LEAVES_SIDE, scale * crop)
        self._kept = lru_cache(maxsize=2 * LEAVES_KEPT)(self._draw)

    def pair(self, step: int, rng: np.random.Generator) -> Pair:
        return self._kept(step // LEAVES_STEPS + int(rng.integers(LEAVES_KEPT)))

    def _draw(self, number: int) -> Pair:
        picture = dead_leaves(np.random.default_rng((self._seed, number, 1)), self._side, self._side)
        return make_pair(f"{LEAVES_KEY} {number}", picture, self._scale)


class Sampler:
    """Batches from images in memory; `batch(step)` is pure."""

    def __init__(self, pairs: list[Pair], settings: CropSettings, *, seed: int, batch: int):
        self.pairs, self.settings, self.seed, self.size = pairs, settings, seed, batch
        self._leaves = DeadLeavesSource(seed, pairs[0].scale, settings.crop)

    def batch(self, step: int) -> Batch:
        """`batch` random crops, each turned and mirrored at random (one of the eight symmetries of the square)."""
        rng = np.random.default_rng((self.seed, step))
        return stacked(
            [
                (pair.key, *cut(pair, self.settings, draw_place(pair, self.settings, rng), rng))
                for pair in self._images(rng, step)
            ]
        )

    def places(self, step: int) -> list[tuple[Pair, CropPlacement]]:
        """Return where the crops of a step are, to cut them elsewhere; as in `batch` where crops are only cut."""
        rng = np.random.default_rng((self.seed, step))
        return [(pair, draw_place(pair, self.settings, rng)) for pair in self._images(rng, step)]

    def _images(self, rng: np.random.Generator, step: int) -> list[Pair]:
        images = [self.pairs[index] for index in rng.integers(len(self.pairs), size=self.size)]
        if share := self.settings.procedural_share:
            drawn = rng.random(self.size) < share
            images = [self._leaves.pair(step, rng) if d else i for i, d in zip(images, drawn, strict=True)]
        return images


def stacked(crops: list[tuple[str, np.ndarray, np.ndarray]]) -> Batch:
    """Stack keys, small and clean sides of single crops to one batch."""
    keys, smalls, cleans = zip(*crops, strict=True)
    return Batch(keys, np.stack(smalls), np.stack(cleans))


def draw_place(pair: Pair, settings: CropSettings, rng: np.random.Generator) -> CropPlacement:
    top, left = _corner(pair, settings, rng)
    return CropPlacement(top, left, int(rng.integers(4)), bool(rng.integers(2)))


def cut(
    pair: Pair, settings: CropSettings, place: CropPlacement, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut one crop: small (crop, crop, 3) and clean (scale crop, scale crop, 3), turned alike, as in `Batch`."""
    crop, scale, top, left = settings.crop, pair.scale, place.top, place.left
    clean = settings.sharpness.crop(pair.clean, scale * top, scale * left, scale * crop, rng)
    clean = turn(clean, place.turns, place.mirrored)
    if settings.sharpness or not settings.degradation.exact:
        # After the turn: chroma and grain of JPEG have a direction.
        return settings.degradation.pair(np.ascontiguousarray(clean), scale, rng, settings.damage)
    return turn(pair.small[top : top + crop, left : left + crop], place.turns, place.mirrored), clean


def _corner(pair: Pair, settings: CropSettings, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left in the reduced image. Skies teach little, so places with more gradient come up more often."""
    height, width = pair.small.shape[:2]
    if settings.choice == "energy":
        return _by_energy(pair, settings.crop, rng)
    draws = 2 if settings.choice == "higher_gradient" else 1
    places = [
        (int(rng.integers(height - settings.crop + 1)), int(rng.integers(width - settings.crop + 1)))
        for _ in range(draws)
    ]
    if draws == 1:
        return places[0]
    return max(places, key=lambda place: _gradient_energy(pair.small, place[0], place[1], settings.crop))


def _gradient_energy(image: np.ndarray, top: int, left: int, crop: int) -> float:
    green = image[top : top + crop, left : left + crop, 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())


def _by_energy(pair: Pair, crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a cell of a grid of places in proportion to its energy, then a place in the cell.

    A quarter of the mean is added to each cell: a model that never sees flat regions cannot distinguish noise from
    texture.
    """
    sums, step = pair.gradient_sums, PLACES_APART
    # The last position.
    height, width = (side - crop for side in pair.small.shape[:2])
    high, low = sums[: height + 1 : step], sums[crop::step]
    cells = (
        high[:, : width + 1 : step] + low[:, crop::step] - high[:, crop::step] - low[:, : width + 1 : step]
    )
    chances = np.cumsum(cells + (0.25 * cells.mean() + 1))
    cell = int(np.searchsorted(chances, rng.random() * chances[-1], side="right"))
    top, left = (step * n + int(rng.integers(step)) for n in divmod(cell, cells.shape[1]))
    return min(top, height), min(left, width)


def turn(image: np.ndarray, turns: int, mirror: bool) -> np.ndarray:
    turned = np.rot90(image, turns)
    return turned[:, ::-1] if mirror else turned
