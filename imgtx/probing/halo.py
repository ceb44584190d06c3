"""How much context a tile needs: the halo at which tiled output equals untiled output, measured on photos.

It cannot be read off the architecture: attention and convolutions reach further in principle than trained
weights use, and a halo as large as the receptive field would cost more than the tile itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from imgtx.errors import UsageError
from imgtx.imageops.geometry import Tile
from imgtx.inference.tiling import Plan, placed, plan, split
from imgtx.inference.whole_image import pieces_of, read_from
from imgtx.models.contract import WHOLE_IMAGE, Conditions, ImageModel, call_model

TOLERANCE = 1 / 255
# Two halos in a row that differ by less than this end the search: context fades with distance.
NEGLIGIBLE = TOLERANCE / 10
# The part of each tile between its halos, in pixels: small, so that one photo holds many seams.
_MIN_CORE = 64


@dataclass(frozen=True)
class HaloDifference:
    """The largest difference between tiled and untiled output of any sample of any image at one halo.

    `as_float` in [0, 1] before rounding, `as_uint8` in levels after; `image` is the index of the image where
    `as_float` occurred.
    """

    halo: int
    as_float: float
    as_uint8: int
    image: int

    @property
    def within(self) -> bool:
        """Whether tiles with this halo keep the promise: at most 1/255, hence at most one level."""
        return self.as_float <= TOLERANCE and self.as_uint8 <= 1


@dataclass(frozen=True)
class HaloReport:
    """Differences by halo, ascending, until nothing is left of them.

    `halo` is the smallest from which on all are within 1/255, or None.
    """

    halo: int | None
    differences: tuple[HaloDifference, ...]


def measure_halo(
    model: ImageModel,
    images: Sequence[np.ndarray],
    *,
    candidates: Sequence[int] | None = None,
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
) -> HaloReport:
    """Find the halo that belongs into a model's info; run in the model's own dtype, normally float32.

    Args:
        model: as `imgtx.inference.predictor` takes it, on `device`.
        images: photos, (H, W, C) uint8 with the model's C, each larger than the tiles (four halos or more).
        candidates: halos in pixels, of which two make a multiple of `info.multiple`; by default all of them
            up to six times the multiple.
        device: as torch names it.
        report: is called with a few words before each halo.

    Raises:
        UsageError: no image, one of another kind or too small for a seam, candidates that do not fit the multiple.
    """
    multiple = model.info.multiple
    finest = multiple // 2 if multiple % 2 == 0 else multiple
    halos = sorted(candidates or range(finest, 6 * multiple + 1, finest))
    _check(images, halos, multiple, model.info.in_channels)
    state = model.prepare({})
    rows = [_seen_whole(model, state, image, device) for image in images]
    untiled = [_untiled(model, state, image, row, device) for image, row in zip(images, rows, strict=True)]
    differences: list[HaloDifference] = []
    for halo in halos:
        if len(differences) > 1 and all(d.as_float < NEGLIGIBLE for d in differences[-2:]):
            break
        report(f"halo of {halo} px, of at most {halos[-1]}")
        gaps = [
            _gap(model, state, image, row, whole, _tiled(image, halo, multiple), device)
            for image, row, whole in zip(images, rows, untiled, strict=True)
        ]
        worst = max(range(len(gaps)), key=lambda i: gaps[i][0])
        differences.append(HaloDifference(halo, gaps[worst][0], max(levels for _, levels in gaps), worst))
    enough = None
    for difference in reversed(differences):
        if not difference.within:
            break
        enough = difference.halo
    return HaloReport(enough, tuple(differences))


def _tiled(image: np.ndarray, halo: int, multiple: int) -> Plan:
    # A core as wide as its two halos keeps the work at four times the untiled run for any halo.
    core = max(_MIN_CORE, 2 * halo, multiple)
    height, width = image.shape[:2]
    return plan(height, width, tile=2 * halo + core // multiple * multiple, halo=halo, multiple=multiple)


def _seen_whole(model: ImageModel, state: Any, image: np.ndarray, device: str) -> Sequence[Conditions]:
    """Return the conditions of a tile of the image: what a model that looks at the whole one found in it."""
    if not hasattr(model, "look_at"):
        return ()
    height, width = image.shape[:2]
    pieces = torch.from_numpy(pieces_of(height, width, model.info.multiple, read_from(image)))
    with torch.inference_mode():
        batch = pieces.to(device).permute(0, 3, 1, 2).float() / 255
        return ({WHOLE_IMAGE: model.look_at(batch, state, {})},)


def _untiled(
    model: ImageModel, state: Any, image: np.ndarray, row: Sequence[Conditions], device: str
) -> np.ndarray:
    """(H, W, C) uint8 -> (s H', s W', C) float32 in [0, 1], of the image padded to the model's multiple."""
    height, width = image.shape[:2]
    multiple = model.info.multiple
    whole = plan(height, width, tile=max(height, width) + multiple, halo=0, multiple=multiple)
    return _run(model, state, split(image, whole)[0], row, device)


def _run(
    model: ImageModel, state: Any, tile: np.ndarray, row: Sequence[Conditions], device: str
) -> np.ndarray:
    with torch.inference_mode():
        batch = torch.from_numpy(tile).to(device).permute(2, 0, 1)[None].float() / 255
        return call_model(model, batch, state, row).clamp(0, 1)[0].permute(1, 2, 0).float().cpu().numpy()


def _gap(
    model: ImageModel,
    state: Any,
    image: np.ndarray,
    row: Sequence[Conditions],
    untiled: np.ndarray,
    cut: Plan,
    device: str,
) -> tuple[float, int]:
    """Return the largest difference, in [0, 1] and in levels, of pixels with at least one halo beside them.

    Neighbouring tiles may overlap by more than two halos, and what is then cut off in the middle of their overlap has
    more context than was asked for: so every tile is compared up to its halos, not what a merge takes of it.
    """
    scale, worst, worst_levels = model.info.scale, 0.0, 0
    for index, (place, tile) in enumerate(zip(cut.tiles, split(image, cut), strict=True)):
        inner = _inner(place, cut)
        rows = [placed(conditions, cut, index) for conditions in row]
        ours = _part(_run(model, state, tile, rows, device), inner, scale, place.top, place.left)
        theirs = _part(untiled, inner, scale, 0, 0)
        worst = max(worst, float(np.abs(ours - theirs).max()))
        levels = (np.floor(x * 255 + 0.5).astype(np.int16) for x in (ours, theirs))
        worst_levels = max(worst_levels, int(np.abs(np.subtract(*levels)).max()))
    return worst, worst_levels


def _inner(tile: Tile, cut: Plan) -> Tile:
    """Return a tile without its halos, which it has wherever the image extends beyond it."""
    top = tile.top + (cut.halo if tile.top else 0)
    left = tile.left + (cut.halo if tile.left else 0)
    bottom = tile.bottom - (cut.halo if tile.bottom < cut.padded_height else 0)
    right = tile.right - (cut.halo if tile.right < cut.padded_width else 0)
    return Tile(top, left, min(bottom, cut.height) - top, min(right, cut.width) - left)


def _part(output: np.ndarray, inner: Tile, scale: int, top: int, left: int) -> np.ndarray:
    """Return what `inner` covers of an output whose origin is (top, left), both in input pixels."""
    rows = slice((inner.top - top) * scale, (inner.bottom - top) * scale)
    columns = slice((inner.left - left) * scale, (inner.right - left) * scale)
    return output[rows, columns]


def _check(images: Sequence[np.ndarray], halos: Sequence[int], multiple: int, channels: int) -> None:
    if not images:
        raise UsageError("measure_halo was given no image: expected one photo or more")
    wrong = [halo for halo in halos if halo < 0 or 2 * halo % multiple]
    if wrong:
        raise UsageError(
            f"measure_halo was given halos {wrong}: expected those of which two make a multiple of the "
            f"model's {multiple} pixels; round them"
        )
    for index, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
            raise UsageError(
                f"measure_halo was given {image.dtype} {image.shape} as image {index}: expected uint8 of "
                f"shape (height, width, {channels}); convert it"
            )
        if _tiled(image, max(halos), multiple).count == 1:
            raise UsageError(
                f"measure_halo was given {image.shape[0]}x{image.shape[1]} as image {index}: expected "
                f"images that tiles of halo {max(halos)} cut, else no seam is tested; pass larger photos or "
                f"smaller candidates"
            )
