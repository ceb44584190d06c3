"""Training samples: where to cut, and the low-resolution partner of each cut.

A batch is a pure function of (seed, step): a resumed run sees exactly the crops that an uninterrupted one sees.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imgtx.degrade import imresize
from imgtx.errors import ImageError, UsageError
from imgtx.pixels import SUFFIXES, decode

MAX_PIXELS = 10**9


@dataclass(frozen=True)
class Pair:
    """A clean image and its exact bicubic reduction: uint8, (scale h, scale w, 3) and (h, w, 3)."""

    key: str
    clean: np.ndarray
    small: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Crops of the images `keys`: uint8, small (B, crop, crop, 3) and clean (B, scale crop, scale crop, 3)."""

    keys: tuple[str, ...]
    small: np.ndarray
    clean: np.ndarray


def load_pairs(folder: Path, scale: int, *, smallest: int, most: int | None = None) -> list[Pair]:
    """Images under `folder` as pairs, in the order of their names, at most `most`.

    Raises UsageError where there is none, and for one that cannot be decoded or whose reduction has a side below
    `smallest` pixels.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise UsageError(
            f"no images under {folder}: give a folder that holds {', '.join(sorted(SUFFIXES))} files"
        )
    return [make_pair(path, path.relative_to(folder).as_posix(), scale, smallest) for path in paths[:most]]


def make_pair(path: Path, key: str, scale: int, smallest: int) -> Pair:
    try:
        pixels = decode(path.read_bytes(), max_pixels=MAX_PIXELS).pixels
    except ImageError as error:
        raise UsageError(f"{path} cannot be trained on ({error.reason}: {error}): remove it") from error
    if min(pixels.shape[:2]) < scale * smallest:
        raise UsageError(
            f"{path} is {pixels.shape[1]} x {pixels.shape[0]}; at scale {scale} a crop of {smallest} px needs "
            f"{scale * smallest} px a side: lower crop, or remove the image"
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels // 257).astype(np.uint8)
    height, width = (side // scale * scale for side in pixels.shape[:2])
    clean = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))[:height, :width])
    return Pair(key, clean, imresize(clean, 1 / scale))


def sample_batch(pairs: list[Pair], *, seed: int, step: int, batch: int, crop: int) -> Batch:
    """`batch` random crops, each turned and mirrored at random (one of the eight symmetries of the square).

    Of two places drawn in an image the one with more gradient is taken: skies teach little.
    """
    rng = np.random.default_rng((seed, step))
    keys, smalls, cleans = [], [], []
    for index in rng.integers(len(pairs), size=batch):
        pair = pairs[index]
        scale = pair.clean.shape[0] // pair.small.shape[0]
        top, left = _liveliest(pair.small, crop, rng)
        small = pair.small[top : top + crop, left : left + crop]
        clean = pair.clean[scale * top : scale * (top + crop), scale * left : scale * (left + crop)]
        turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
        keys.append(pair.key)
        smalls.append(_turn(small, turns, mirror))
        cleans.append(_turn(clean, turns, mirror))
    return Batch(tuple(keys), np.stack(smalls), np.stack(cleans))


def _liveliest(image: np.ndarray, crop: int, rng: np.random.Generator, draws: int = 2) -> tuple[int, int]:
    height, width = image.shape[:2]
    places = [
        (int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1))) for _ in range(draws)
    ]
    return max(places, key=lambda place: _gradient_energy(image, place[0], place[1], crop))


def _gradient_energy(image: np.ndarray, top: int, left: int, crop: int) -> float:
    green = image[top : top + crop, left : left + crop, 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())


def _turn(image: np.ndarray, turns: int, mirror: bool) -> np.ndarray:
    turned = np.rot90(image, turns)
    return turned[:, ::-1] if mirror else turned
