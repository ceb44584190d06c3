"""Random holes of known kinds, and pictures with a hole as models get them (numpy only).

Strokes and boxes as LaMa draws them (Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier
Convolutions", WACV 2022, the generator of its repository, parameters for 256 px). Counts grow with the area, so that
a mask of any size is as dense as theirs; at 256 x 256 they are theirs.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np

from imgtx.degradations.base import Degradation
from imgtx.errors import UsageError
from imgtx.imageops.holes import with_mask

# The counts are for masks of this side in pixels.
SIDE = 256
# The share of masks with boxes, in a kind that has them.
BOXES_SHARE = 0.3 / 1.3
# Denser masks are drawn again.
MAX_SHARE = 0.5
# A polyline has 1 to 5 pieces.
TURNS = 4


@dataclass(frozen=True)
class Kind:
    """How many strokes a mask has, how wide and long their pieces are; or how many boxes, of which sides; pixels."""

    strokes: tuple[int, int]
    width: int
    length: int
    boxes: tuple[int, int] = (0, 0)
    sides: tuple[int, int] = (10, 50)
    # Pixels between boxes and the edge.
    margin: int = 0


@dataclass(frozen=True)
class Holes:
    """How often training draws each kind of hole, in any unit; the kinds are KINDS."""

    thin: float = 0.5
    medium: float = 0.4
    thick: float = 0.1

    def __post_init__(self) -> None:
        for name, share in asdict(self).items():
            if not share >= 0:
                raise UsageError(f"{name} = {share}: must be 0 or more")
        if not sum(asdict(self).values()) > 0:
            raise UsageError("thin, medium and thick are all 0: one of them must be more than 0")


KINDS = {
    "thin": Kind((4, 50), 10, 40),
    "medium": Kind((4, 5), 50, 100, (1, 5), (10, 50)),
    "thick": Kind((1, 5), 100, 200, (1, 3), (30, 150), 10),
}


def random_mask(rng: np.random.Generator, height: int, width: int, kind: str) -> np.ndarray:
    """Draw a mask, (H, W) bool, true in a hole of one pixel to half of all. UsageError for an unknown kind."""
    if kind not in KINDS:
        raise UsageError(f"unknown mask kind {kind!r}: expected one of {', '.join(KINDS)}")
    chosen = KINDS[kind]
    while True:
        mask = np.zeros((height, width), bool)
        if chosen.boxes[1] and rng.random() < BOXES_SHARE:
            for _ in range(_count(rng, chosen.boxes, mask)):
                _box(rng, mask, chosen)
        else:
            for number in range(_count(rng, chosen.strokes, mask)):
                _stroke(rng, mask, chosen, odd=number % 2 == 1)
        if 0 < mask.mean() <= MAX_SHARE:
            return mask


def _count(rng: np.random.Generator, bounds: tuple[int, int], mask: np.ndarray) -> int:
    """Draw a count from `bounds`, which are for 256 x 256 pixels, and scale it to the mask; round at random."""
    expected = int(rng.integers(bounds[0], bounds[1] + 1)) * mask.size / SIDE**2
    return int(expected + rng.random())


def _stroke(rng: np.random.Generator, mask: np.ndarray, kind: Kind, *, odd: bool) -> None:
    """Draw a polyline that turns by little; an `odd` one goes the other way."""
    height, width = mask.shape
    y, x = float(rng.integers(height)), float(rng.integers(width))
    for _ in range(1 + int(rng.integers(TURNS + 1))):
        angle = 0.01 + float(rng.integers(4))
        angle = angle if odd else 2 * math.pi - angle
        length = 10 + int(rng.integers(kind.length))
        end_y = float(np.clip(y + length * math.cos(angle), 0, height))
        end_x = float(np.clip(x + length * math.sin(angle), 0, width))
        _piece(mask, (y, x), (end_y, end_x), 5 + int(rng.integers(kind.width)))
        y, x = end_y, end_x


def _piece(mask: np.ndarray, start: tuple[float, float], end: tuple[float, float], width: int) -> None:
    """Set every pixel within half of `width` of the segment."""
    reach = width / 2
    top, left = (max(0, math.floor(min(a, b) - reach)) for a, b in zip(start, end, strict=True))
    bottom, right = (math.ceil(max(a, b) + reach) + 1 for a, b in zip(start, end, strict=True))
    part = mask[top:bottom, left:right]
    y = np.arange(top, top + part.shape[0], dtype=np.float32)[:, None] - start[0]
    x = np.arange(left, left + part.shape[1], dtype=np.float32)[None, :] - start[1]
    down, across = end[0] - start[0], end[1] - start[1]
    along = np.clip((y * down + x * across) / max(down**2 + across**2, 1e-6), 0, 1)
    part |= (y - along * down) ** 2 + (x - along * across) ** 2 <= reach**2


def _box(rng: np.random.Generator, mask: np.ndarray, kind: Kind) -> None:
    height, width = (int(rng.integers(*kind.sides)) for _ in range(2))
    top, left = (
        kind.margin + int(rng.integers(max(1, length - 2 * kind.margin - side + 1)))
        for length, side in zip(mask.shape, (height, width), strict=True)
    )
    mask[top : top + height, left : left + width] = True


def with_random_hole(clean: np.ndarray, rng: np.random.Generator, holes: Holes) -> np.ndarray:
    """`with_mask` of a random hole: (H, W, 3) uint8 -> (H, W, 4) uint8."""
    shares = np.array(list(asdict(holes).values()))
    kind = list(asdict(holes))[int(rng.choice(len(shares), p=shares / shares.sum()))]
    height, width = clean.shape[:2]
    return with_mask(clean, random_mask(rng, height, width, kind))


def _pair(
    clean: np.ndarray, scale: int, rng: np.random.Generator, damage: Holes
) -> tuple[np.ndarray, np.ndarray]:
    return with_random_hole(clean, rng, damage), clean


HOLES = Degradation(
    name="holes",
    task="inpainting",
    scales=(1,),
    card="holes of strokes and boxes, starting from a smooth fill.",
    make=_pair,
    damage=Holes,
    masks=True,
)
