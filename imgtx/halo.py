"""How much context a tile needs: the halo at which tiled output equals untiled output, measured on photos.

It cannot be read off the architecture: attention and convolutions reach further in principle than trained
weights use, and a halo as large as the receptive field would cost more than the tile itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from imgtx.errors import UsageError
from imgtx.predict import ImageModel
from imgtx.tiling import Plan, merge, plan, split

TOLERANCE = 1 / 255
# The part of each tile between its halos, in pixels: small, so that one photo holds many seams.
_SMALLEST_CORE = 64


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
    """Differences by halo, ascending; `halo` is the smallest from which on all are within 1/255, or None."""

    halo: int | None
    differences: tuple[HaloDifference, ...]


def measure_halo(
    model: ImageModel,
    images: Sequence[np.ndarray],
    *,
    candidates: Sequence[int] | None = None,
    device: str = "cpu",
) -> HaloReport:
    """Find the halo that belongs into a model's info; run in the model's own dtype, normally float32.

    Args:
        model: as `imgtx.predict` takes it, lying on `device`.
        images: photos, (H, W, C) uint8 with the model's C, each larger than the tiles (four halos or more).
        candidates: halos in pixels, multiples of `info.multiple`; one to six times the multiple if None.
        device: as torch names it.

    Raises:
        UsageError: no image, one of another kind or too small for a seam, candidates that are no multiples.
    """
    multiple = model.info.multiple
    halos = sorted(candidates) if candidates else [multiple * k for k in range(1, 7)]
    _check(images, halos, multiple, model.info.in_channels)
    state = model.prepare({})
    untiled = [_run(model, state, image, _whole(image, multiple), device) for image in images]
    differences = []
    for halo in halos:
        tiled = (_run(model, state, image, _tiled(image, halo, multiple), device) for image in images)
        gaps = [_gap(a, b) for a, b in zip(tiled, untiled, strict=True)]
        worst = max(range(len(gaps)), key=lambda i: gaps[i][0])
        differences.append(HaloDifference(halo, gaps[worst][0], max(levels for _, levels in gaps), worst))
    enough = None
    for difference in reversed(differences):
        if not difference.within:
            break
        enough = difference.halo
    return HaloReport(enough, tuple(differences))


def _whole(image: np.ndarray, multiple: int) -> Plan:
    height, width = image.shape[:2]
    return plan(height, width, tile=max(height, width) + multiple, halo=0, multiple=multiple)


def _tiled(image: np.ndarray, halo: int, multiple: int) -> Plan:
    # A core as wide as its two halos keeps the work at four times the untiled run, whatever the halo.
    core = max(_SMALLEST_CORE, 2 * halo, multiple)
    height, width = image.shape[:2]
    return plan(height, width, tile=2 * halo + core // multiple * multiple, halo=halo, multiple=multiple)


def _run(model: ImageModel, state: Any, image: np.ndarray, cut: Plan, device: str) -> np.ndarray:
    """(H, W, C) uint8 -> (s H, s W, C) float32 in [0, 1], tile by tile."""
    outputs = []
    with torch.inference_mode():
        for tile in split(image, cut):
            batch = torch.from_numpy(tile).to(device).permute(2, 0, 1)[None].float() / 255
            output = model(batch, state).clamp(0, 1)[0].permute(1, 2, 0)
            outputs.append(output.float().cpu().numpy())
    return merge(np.stack(outputs), cut, model.info.scale)


def _gap(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    levels_a, levels_b = (np.floor(x * 255 + 0.5).astype(np.int16) for x in (a, b))
    return float(np.abs(a - b).max()), int(np.abs(levels_a - levels_b).max())


def _check(images: Sequence[np.ndarray], halos: Sequence[int], multiple: int, channels: int) -> None:
    if not images:
        raise UsageError("measure_halo was given no image; legal is one photo or more: pass some")
    wrong = [halo for halo in halos if halo < 0 or halo % multiple]
    if wrong:
        raise UsageError(
            f"measure_halo was given halos {wrong}; legal are multiples of the model's {multiple} pixels: "
            f"round them"
        )
    for index, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
            raise UsageError(
                f"measure_halo was given {image.dtype} {image.shape} as image {index}; legal is uint8 of "
                f"shape (height, width, {channels}): convert it"
            )
        if _tiled(image, max(halos), multiple).count == 1:
            raise UsageError(
                f"measure_halo was given {image.shape[0]}x{image.shape[1]} as image {index}; legal are "
                f"images that tiles of halo {max(halos)} cut, else no seam is tested: pass larger photos or "
                f"smaller candidates"
            )
