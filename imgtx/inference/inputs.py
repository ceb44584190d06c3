"""What a predictor may be given: arrays that are images, masks that fit them."""

import numpy as np

from imgtx.errors import UsageError
from imgtx.imageops.holes import WHITE
from imgtx.models.info import ModelInfo


def check_image(image: np.ndarray) -> None:
    """Raise UsageError for what a predictor cannot run."""
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        given = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise UsageError(
            f"image of type {given}: expected a numpy array of uint8 or uint16; scale, round and convert it"
        )
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] > 4):
        raise UsageError(
            f"image of shape {image.shape}: expected (H, W) or (H, W, 1 to 4), channels last, "
            "no side empty; transpose or slice it first"
        )


def check_mask(mask: np.ndarray | None, pixels: np.ndarray, info: ModelInfo) -> np.ndarray | None:
    """Return the mask as (H, W) bool, None for a model that takes none; UsageError where they do not match."""
    if (mask is None) == info.masks:
        raise UsageError(
            f"model {info.name!r} fills holes: give it a mask too, or choose a model that takes none"
            if info.masks
            else f"a mask for model {info.name!r}, which takes none: leave it out, or choose a model for holes"
        )
    if mask is None:
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.bool_, np.uint8) or mask.ndim != 2:
        raise UsageError(
            f"a mask of type {getattr(mask, 'dtype', type(mask).__name__)} and shape {np.shape(mask)}: expected an "
            "array (H, W) of bool or uint8, true or white in the hole; convert it"
        )
    if mask.shape != pixels.shape[:2]:
        raise UsageError(
            f"a mask of {mask.shape} for an image of {pixels.shape[:2]}: expected the same size; resize it"
        )
    return mask if mask.dtype == np.bool_ else mask >= WHITE
