"""Damage as archives hold it: blurred, resized, noisy, compressed, in random order.

A pure function of image, generator and parameters (numpy and Pillow). The order is shuffled because the order of
real damage is not known (Zhang et al., "Designing a practical degradation model for deep blind image
super-resolution", arXiv 2103.14006); every step ends in 8 bits, as files between programs do. JPEG starts its 8 x 8
blocks 0 to 7 pixels away from the image's corner: real files are cut after they were compressed, and attention
windows of 8 pixels would otherwise learn the one grid they share.
"""

import io
import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Protocol

import numpy as np
from PIL import Image, ImageFilter

from imgtx.degradations.base import Degradation
from imgtx.errors import UsageError

STEPS = ("blur", "resize", "noise", "jpeg", "shrink")
JPEG_BLOCK = 8
# Damage is done at up to this many times the output's sides: what is finer than that, shrinking averages away.
BEFORE = 2
# The number of normal values kept ready for noise.
NORMALS = 1 << 20
SUBSAMPLING = ("4:4:4", "4:2:0")
FILTERS = (
    Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.BOX,
)  # fmt: skip


@dataclass(frozen=True)
class ArchiveDamage:
    """How bad it gets; each image draws its own strength between nothing and these.

    `blur` is the largest standard deviation in pixels of the output; `resize` how far the size wanders on the way
    (0.4: sides of 0.6 to 1.4); `noise` the largest standard deviation in levels of 255; `worst_quality` and
    `best_quality` JPEG's; `skip` the chance of each of these to be left out, and of the last JPEG, which ends the
    chain because that is how archives are stored.
    """

    blur: float = 0.9
    resize: float = 0.4
    noise: float = 10.0
    worst_quality: int = 40
    best_quality: int = 95
    skip: float = 0.3

    def __post_init__(self) -> None:
        limits = {
            "blur": 10.0,
            "resize": 0.9,
            "noise": 255.0,
            "worst_quality": 100,
            "best_quality": 100,
            "skip": 1,
        }
        for f in fields(self):
            lowest, value = 1 if f.name.endswith("quality") else 0, getattr(self, f.name)
            if not lowest <= value <= limits[f.name]:
                raise UsageError(f"{f.name} = {value}: must be {lowest} to {limits[f.name]:g}")
        if self.worst_quality > self.best_quality:
            raise UsageError(
                f"worst_quality = {self.worst_quality} is above best_quality = {self.best_quality}: swap them"
            )


DAMAGE = ArchiveDamage()


def archive(
    clean: np.ndarray, scale: int, rng: np.random.Generator, damage: ArchiveDamage = DAMAGE
) -> np.ndarray:
    """Return what an archive would hold of `clean`, `scale` times smaller.

    clean: (scale h, scale w, 3) uint8. Returns (h, w, 3) uint8; the same for the same state of `rng`.
    """
    height, width = clean.shape[:2]
    small = (width // scale, height // scale)
    image = Image.fromarray(clean)
    if scale > BEFORE:
        image = image.resize((BEFORE * small[0], BEFORE * small[1]), _filter(rng))
    for index in rng.permutation(len(STEPS)):
        step = STEPS[index]
        if step == "shrink":
            image = image.resize(small, _filter(rng))
        elif rng.random() >= damage.skip:
            image = _apply(step, image, image.width / small[0], rng, damage)
    if image.size != small:
        image = image.resize(small, _filter(rng))
    if rng.random() >= damage.skip:
        image = jpeg(image, rng, damage)
    return np.asarray(image)


def _apply(
    step: str, image: Image.Image, magnified: float, rng: np.random.Generator, damage: ArchiveDamage
) -> Image.Image:
    """`magnified`: how many pixels of `image` make one of the output, a side."""
    if step == "blur":
        return blur(image, magnified, rng, damage)
    if step == "resize":
        return resize(image, rng, damage)
    if step == "noise":
        return noise(image, rng, damage)
    return jpeg(image, rng, damage)


def blur(
    image: Image.Image, magnified: float, rng: np.random.Generator, damage: ArchiveDamage
) -> Image.Image:
    """Gaussian, with its own width in x and y."""
    x, y = rng.uniform(0, damage.blur * magnified, 2)
    return image.filter(ImageFilter.GaussianBlur((float(x), float(y))))


def resize(image: Image.Image, rng: np.random.Generator, damage: ArchiveDamage) -> Image.Image:
    """Resize to a random size, in which later steps work."""
    factor = rng.uniform(1 - damage.resize, 1 + damage.resize)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), _filter(rng))


def noise(image: Image.Image, rng: np.random.Generator, damage: ArchiveDamage) -> Image.Image:
    """Add Gaussian noise that grows with brightness, as a sensor's: in colour, or grey as film's grain."""
    levels = np.asarray(image)
    ground, shot = rng.uniform(0, damage.noise, 2)
    sigma = np.hypot(0.7 * ground, 0.7 * shot * np.sqrt(np.arange(256) / 255)).astype(np.float32)
    height, width, channels = levels.shape
    noisy = sigma[levels]
    noisy *= normal(rng, (height, width, channels if rng.random() < 0.6 else 1))
    noisy += levels
    np.rint(noisy, out=noisy)
    return Image.fromarray(np.clip(noisy, 0, 255, out=noisy).astype(np.uint8))


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers; for a crop a run of a fixed million from a random start, ten times faster to draw."""
    count = math.prod(shape)
    if count > NORMALS // 4:
        return rng.standard_normal(shape, np.float32)
    start = int(rng.integers(NORMALS - count))
    return _normals()[start : start + count].reshape(shape)


@cache
def _normals() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(NORMALS, np.float32)


class Qualities(Protocol):
    """Between which qualities JPEG is drawn."""

    @property
    def worst_quality(self) -> int: ...
    @property
    def best_quality(self) -> int: ...


def jpeg(image: Image.Image, rng: np.random.Generator, damage: Qualities) -> Image.Image:
    """Compressed and read again, with blocks that start up to 7 pixels outside the image."""
    top, left = (int(n) for n in rng.integers(JPEG_BLOCK, size=2))
    quality = int(rng.integers(damage.worst_quality, damage.best_quality + 1))
    padded = np.pad(np.asarray(image), ((top, 0), (left, 0), (0, 0)), mode="edge")
    file = io.BytesIO()
    Image.fromarray(padded).save(
        file, "JPEG", quality=quality, subsampling=SUBSAMPLING[int(rng.integers(len(SUBSAMPLING)))]
    )
    return Image.open(file).crop((left, top, left + image.width, top + image.height))


def _filter(rng: np.random.Generator) -> Image.Resampling:
    return FILTERS[int(rng.integers(len(FILTERS)))]


def _pair(
    clean: np.ndarray, scale: int, rng: np.random.Generator, damage: ArchiveDamage
) -> tuple[np.ndarray, np.ndarray]:
    return archive(clean, scale, rng, damage), clean


ARCHIVE = Degradation(
    name="archive",
    task="super-resolution",
    scales=(2, 3, 4),
    card="for pictures as archives hold them: blurred, resized, noisy, JPEG.",
    make=_pair,
    damage=ArchiveDamage,
    protocol="as RGB shrunk, blurred, resized, noised and compressed by imgtx.degradations.archive, its generator "
    "seeded with the image's place among the dataset's names,",
)
