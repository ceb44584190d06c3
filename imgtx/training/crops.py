"""Training samples: where to cut, and the low-resolution partner of each cut.

A batch is a pure function of (seed, step): a resumed run sees exactly the crops that an uninterrupted one sees.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np

from imgtx.degradations.archive import ArchiveDamage, archive
from imgtx.degradations.dead_leaves import dead_leaves
from imgtx.degradations.holes import Holes, with_random_hole
from imgtx.degradations.restoration import RestorationDamage, restoration_pair
from imgtx.degradations.sharpness import Variety
from imgtx.errors import UsageError
from imgtx.imageops.resize import imresize

SMALLEST_VALID = 8  # pixels a side of a reduced validation image: its borders are not measured
# What [damage] of a training spec may say for each; the exact reduction knows no strength.
Damage = ArchiveDamage | RestorationDamage | Holes
DAMAGES = {"archive": ArchiveDamage, "restoration": RestorationDamage, "holes": Holes}
DEGRADATIONS = ("bicubic", *DAMAGES)
CROP_CHOICES = ("livelier", "energy", "uniform")
# Every LEAVES_STEPS steps a new procedural picture of LEAVES_SIDE pixels takes the place of the oldest of LEAVES_KEPT:
# drawing one costs as much as training on four crops.
LEAVES_SIDE, LEAVES_STEPS, LEAVES_KEPT = 512, 48, 4
LEAVES_KEY = "dead leaves"
PLACES_APART = 8  # reduced pixels between the places that "energy" chooses from


@dataclass(frozen=True)
class Pair:
    """A clean image and its exact bicubic reduction: uint8, (scale h, scale w, 3) and (h, w, 3)."""

    key: str
    clean: np.ndarray
    small: np.ndarray

    @cached_property
    def scale(self) -> int:
        return self.clean.shape[0] // self.small.shape[0]

    @cached_property
    def slope_sums(self) -> np.ndarray:
        """Sums of absolute gradients of the reduction's green above and left of each pixel: (h + 1, w + 1) int64."""
        green = self.small[..., 1].astype(np.int64)
        down = np.abs(np.diff(green, axis=0, append=green[-1:]))
        across = np.abs(np.diff(green, axis=1, append=green[:, -1:]))
        return np.pad(down + across, ((1, 0), (1, 0))).cumsum(0).cumsum(1)


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
class Place:
    """A crop's top left corner in the reduced image, and which of the square's eight symmetries it is seen in.

    First `turns` quarter turns against the clock, then, if `mirrored`, left and right change sides.
    """

    top: int
    left: int
    turns: int
    mirrored: bool


@dataclass(frozen=True)
class Cutting:
    """How crops are made: `crop` reduced pixels a side, their places by `choice`, their partners by `damage`.

    livelier: of two places drawn at random the one with more gradient; energy: drawn in proportion to gradient
    energy; uniform: anywhere. Without `damage` the partner is the exact bicubic reduction. `procedural_share` of the
    crops come from dead leaves. `variety` changes the clean side first.
    """

    crop: int
    choice: str = "livelier"
    damage: Damage | None = None
    procedural_share: float = 0.0
    variety: Variety = field(default_factory=Variety)

    @property
    def ready(self) -> bool:
        """Whether crops are cut out of pairs as they lie, without further work."""
        return self.damage is None and not self.procedural_share and not self.variety


def check_size(pixels: np.ndarray, name: str, scale: int, smallest: int) -> None:
    """UsageError for an image whose reduction has a side below `smallest`."""
    height, width = pixels.shape[:2]
    if min(height, width) < scale * smallest:
        raise UsageError(
            f"{name} is {width} x {height}; at scale {scale} a crop of {smallest} px needs "
            f"{scale * smallest} px a side: lower crop, or remove the image"
        )


def reduced(key: str, pixels: np.ndarray, scale: int) -> Pair:
    """The pair of an (H, W, 3) uint8 image, cut at the bottom and right to multiples of `scale`."""
    height, width = (side // scale * scale for side in pixels.shape[:2])
    clean = np.ascontiguousarray(pixels[:height, :width])
    return Pair(key, clean, imresize(clean, 1 / scale) if scale > 1 else clean)


def degraded(valid: list[Pair], cutting: Cutting) -> list[Pair]:
    """Validation pairs as training crops are, in 8 bits; damage by fixed seeds, always the same."""
    if cutting.damage is None:
        return valid
    made = []
    for number, pair in enumerate(valid):
        small, clean = damaged(pair.clean, pair.scale, cutting.damage, np.random.default_rng(number))
        small = np.clip(np.rint(small), 0, 255).astype(np.uint8)
        made.append(replace(pair, small=small, clean=clean))
    return made


def damaged(
    clean: np.ndarray,
    scale: int,
    damage: Damage,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """The damaged side of a clean (scale h, scale w, 3) uint8 image, and what a model should make of it."""
    if isinstance(damage, RestorationDamage):
        return restoration_pair(clean, rng, damage)
    if isinstance(damage, Holes):
        return with_random_hole(clean, rng, damage), clean
    return archive(clean, scale, rng, damage), clean


class Leaves:
    """Dead leaves as training images: at each step the choice is among LEAVES_KEPT, and all is a function of `seed`."""

    def __init__(self, seed: int, scale: int, crop: int):
        self._seed, self._scale, self._side = seed, scale, max(LEAVES_SIDE, scale * crop)
        self._kept = lru_cache(maxsize=2 * LEAVES_KEPT)(self._draw)

    def pair(self, step: int, rng: np.random.Generator) -> Pair:
        return self._kept(step // LEAVES_STEPS + int(rng.integers(LEAVES_KEPT)))

    def _draw(self, number: int) -> Pair:
        picture = dead_leaves(np.random.default_rng((self._seed, number, 1)), self._side, self._side)
        return reduced(f"{LEAVES_KEY} {number}", picture, self._scale)


class Sampler:
    """Batches from images in memory; `batch(step)` is pure."""

    def __init__(self, pairs: list[Pair], cutting: Cutting, *, seed: int, batch: int):
        self.pairs, self.cutting, self.seed, self.size = pairs, cutting, seed, batch
        self._leaves = Leaves(seed, pairs[0].scale, cutting.crop)

    def batch(self, step: int) -> Batch:
        """`batch` random crops, each turned and mirrored at random (one of the eight symmetries of the square)."""
        rng = np.random.default_rng((self.seed, step))
        return stacked(
            [
                (pair.key, *cut(pair, self.cutting, draw_place(pair, self.cutting, rng), rng))
                for pair in self._images(rng, step)
            ]
        )

    def places(self, step: int) -> list[tuple[Pair, Place]]:
        """Where the crops of a step lie, for who cuts them elsewhere; as `batch` has them without archive damage."""
        rng = np.random.default_rng((self.seed, step))
        return [(pair, draw_place(pair, self.cutting, rng)) for pair in self._images(rng, step)]

    def _images(self, rng: np.random.Generator, step: int) -> list[Pair]:
        images = [self.pairs[index] for index in rng.integers(len(self.pairs), size=self.size)]
        if share := self.cutting.procedural_share:
            drawn = rng.random(self.size) < share
            images = [self._leaves.pair(step, rng) if d else i for i, d in zip(images, drawn, strict=True)]
        return images


def stacked(crops: list[tuple[str, np.ndarray, np.ndarray]]) -> Batch:
    """Keys, small and clean sides of single crops as one batch."""
    keys, smalls, cleans = zip(*crops, strict=True)
    return Batch(keys, np.stack(smalls), np.stack(cleans))


def draw_place(pair: Pair, cutting: Cutting, rng: np.random.Generator) -> Place:
    top, left = _corner(pair, cutting, rng)
    return Place(top, left, int(rng.integers(4)), bool(rng.integers(2)))


def cut(
    pair: Pair, cutting: Cutting, place: Place, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One crop: small (crop, crop, 3) and clean (scale crop, scale crop, 3), turned alike, as in `Batch`."""
    crop, scale, top, left = cutting.crop, pair.scale, place.top, place.left
    clean = cutting.variety.crop(pair.clean, scale * top, scale * left, scale * crop, rng)
    clean = turn(clean, place.turns, place.mirrored)
    if cutting.damage is not None:  # after the turn: chroma and grain of JPEG have a direction
        return damaged(np.ascontiguousarray(clean), scale, cutting.damage, rng)
    if cutting.variety:
        return imresize(clean, 1 / scale), clean
    return turn(pair.small[top : top + crop, left : left + crop], place.turns, place.mirrored), clean


def _corner(pair: Pair, cutting: Cutting, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left in the reduced image. Skies teach little, so that lively places come up more often."""
    height, width = pair.small.shape[:2]
    if cutting.choice == "energy":
        return _by_energy(pair, cutting.crop, rng)
    draws = 2 if cutting.choice == "livelier" else 1
    places = [
        (int(rng.integers(height - cutting.crop + 1)), int(rng.integers(width - cutting.crop + 1)))
        for _ in range(draws)
    ]
    if draws == 1:
        return places[0]
    return max(places, key=lambda place: _gradient_energy(pair.small, place[0], place[1], cutting.crop))


def _gradient_energy(image: np.ndarray, top: int, left: int, crop: int) -> float:
    green = image[top : top + crop, left : left + crop, 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())


def _by_energy(pair: Pair, crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """A cell of a grid of places in proportion to its energy, then anywhere in the cell.

    To each cell a quarter of the mean is added: who never sees a flat place cannot tell its noise from texture.
    """
    sums, step = pair.slope_sums, PLACES_APART
    height, width = (side - crop for side in pair.small.shape[:2])  # the last place
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
