"""Damage that restoration removes: noise, JPEG, both, mild blur, or nothing at all.

A pure function of image, generator and parameters (numpy and Pillow). Noise alone is Gaussian as in the denoising
tables; half of it stays in floats below 0 and above 255, as those tables measure it, and half ends in 8 bits, as files
hold it. JPEG starts its blocks 0 to 7 pixels outside the image (`imgtx.degradations.archive.jpeg`). Some images stay
undamaged, because a model that never sees one smooths them too.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from PIL import Image, ImageFilter

from imgtx.degradations.archive import jpeg, normal
from imgtx.degradations.base import Degradation
from imgtx.errors import UsageError

KINDS = ("noise", "jpeg", "both", "blur", "none")
# JPEG damage is plainly visible up to this quality.
LOW_QUALITY = 25


@dataclass(frozen=True)
class RestorationDamage:
    """How bad it gets; each image draws its kind by the shares, and its strength between nothing and these.

    `noise` is the largest standard deviation in levels of 255, `blur` in pixels; `worst_quality` and `best_quality`
    are JPEG's; `noise_share`, `jpeg_share`, `both_share` and `blur_share` say how often each kind comes, what they
    leave of 1 stays clean; `grey` is the share of images without colour; `low_quality_share` that of JPEGs whose
    quality is LOW_QUALITY at most, the others draw theirs evenly.
    """

    noise: float = 55.0
    worst_quality: int = 5
    best_quality: int = 95
    blur: float = 0.8
    noise_share: float = 0.5
    jpeg_share: float = 0.27
    both_share: float = 0.13
    blur_share: float = 0.05
    grey: float = 0.1
    low_quality_share: float = 0.0

    def __post_init__(self) -> None:
        limits = {"noise": 255.0, "worst_quality": 100, "best_quality": 100, "blur": 10.0}
        for f in fields(self):
            lowest, value = 1 if f.name.endswith("quality") else 0, getattr(self, f.name)
            if not lowest <= value <= limits.get(f.name, 1):
                raise UsageError(f"{f.name} = {value}: must be {lowest} to {limits.get(f.name, 1):g}")
        if self.worst_quality > self.best_quality:
            raise UsageError(
                f"worst_quality = {self.worst_quality} is above best_quality = {self.best_quality}: swap them"
            )
        if self.low_quality_share and self.worst_quality > LOW_QUALITY:
            raise UsageError(
                f"low_quality_share = {self.low_quality_share:g} needs qualities of {LOW_QUALITY} or less, which "
                f"worst_quality = {self.worst_quality} excludes: lower worst_quality, or omit low_quality_share"
            )
        if sum(self.shares) > 1 + 1e-9:
            raise UsageError(
                f"the shares of noise, jpeg, both and blur add up to {sum(self.shares):g}: must be 1 or less; the "
                f"rest of the images stays clean"
            )

    @property
    def shares(self) -> tuple[float, ...]:
        return self.noise_share, self.jpeg_share, self.both_share, self.blur_share


DAMAGE = RestorationDamage()


def restoration_pair(
    clean: np.ndarray, rng: np.random.Generator, damage: RestorationDamage = DAMAGE
) -> tuple[np.ndarray, np.ndarray]:
    """Return a damaged image and the clean one it should become; the same for the same state of `rng`.

    clean: (H, W, 3) uint8. Returns (H, W, 3) float32 in levels of 255, which noise may carry below 0 and above 255,
    and (H, W, 3) uint8: `clean`, or its luminance thrice.
    """
    if rng.random() < damage.grey:
        clean = np.asarray(Image.fromarray(clean).convert("L").convert("RGB"))
    kind = KINDS[int(np.searchsorted(np.cumsum(damage.shares), rng.random(), side="right"))]
    levels: np.ndarray = clean.astype(np.float32)
    if kind == "blur":
        sigma = float(rng.uniform(0, damage.blur))
        levels = np.asarray(Image.fromarray(clean).filter(ImageFilter.GaussianBlur(sigma)), np.float32)
    if kind in ("noise", "both"):
        levels = levels + np.float32(rng.uniform(0, damage.noise)) * _noise(clean, rng)
    if kind in ("jpeg", "both") or (kind == "noise" and rng.random() < 0.5):
        levels = np.clip(np.rint(levels), 0, 255)
    if kind in ("jpeg", "both"):
        image = Image.fromarray(levels.astype(np.uint8))
        levels = np.asarray(jpeg(image, rng, _of_this_jpeg(damage, rng)), np.float32)
    return levels, clean


def _of_this_jpeg(damage: RestorationDamage, rng: np.random.Generator) -> RestorationDamage:
    """Without a share of low qualities nothing is drawn: older recipes keep their crops."""
    if damage.low_quality_share and rng.random() < damage.low_quality_share:
        return replace(damage, best_quality=min(LOW_QUALITY, damage.best_quality))
    return damage


def _noise(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standard normal, of each channel its own; of a grey image the same in all."""
    grey = bool((clean[..., :1] == clean).all())
    return normal(rng, (*clean.shape[:2], 1 if grey else clean.shape[2]))


def _pair(
    clean: np.ndarray, scale: int, rng: np.random.Generator, damage: RestorationDamage
) -> tuple[np.ndarray, np.ndarray]:
    return restoration_pair(clean, rng, damage)


RESTORATION = Degradation(
    name="restoration",
    task="restoration",
    scales=(1,),
    card="Gaussian noise of sigma 0 to 55, JPEG of quality 5 to 95 on any grid, both, mild blur; blind.",
    make=_pair,
    damage=RestorationDamage,
)
