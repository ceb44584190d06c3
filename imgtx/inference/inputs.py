"""What a predictor may be given: images as arrays, PIL images or paths, masks that fit them."""

from pathlib import Path
from typing import Any

import numpy as np

from imgtx.errors import UsageError
from imgtx.imageops.holes import WHITE
from imgtx.models.info import ModelInfo

# Of a file that a library's user names; the pipeline has its own limit (`max_megapixels`).
LARGEST = 1000 * 10**6
# Modes of PIL images whose samples are pixels as imgtx takes them.
_PLAIN = ("L", "LA", "RGB", "RGBA", "I;16")


def pixels_of(image: Any) -> tuple[Any, int]:
    """Return a picture as an array, and the quality that its file was saved with (`imgtx.codecs.Header.quality`).

    image: the path of a file, which is decoded and turned upright; a PIL image, of which a palette, black and white and
    CMYK become RGB, with alpha where there is transparency; anything else comes back as it is, with quality 100, for
    `check_image`. A PIL image that was changed after it was opened counts as lossless too.
    Raises UsageError for a path that cannot be read, ImageError for a file that is no picture.
    """
    if isinstance(image, str | Path):
        # Not above: a bare machine, which trains on arrays, lacks the decoders.
        from imgtx.codecs import decode, read_header

        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise UsageError(
                f"{image} cannot be read ({error.strerror}): give the path of a picture"
            ) from error
        picture = decode(data, max_pixels=LARGEST)
        pixels = picture.pixels if picture.pixels.shape[2] == 3 else picture.pixels[:, :, 0]
        if picture.alpha is not None:
            pixels = np.dstack([pixels, picture.alpha])
        return pixels, read_header(data).quality
    # PIL's own types would cost its import here.
    if not (hasattr(image, "convert") and hasattr(image, "mode")):
        return image, 100
    format, tables = getattr(image, "format", None), getattr(image, "quantization", None)
    quality = 0 if format == "WEBP" else 100
    if format in ("JPEG", "MPO") and tables:
        from imgtx.codecs.formats.jpeg_quality import quality_of

        quality = quality_of(tables.get(0) or next(iter(tables.values())))
    if image.mode not in _PLAIN:
        image = image.convert("RGBA" if "transparency" in image.info or "A" in image.mode else "RGB")
    return np.asarray(image), quality


def check_image(image: np.ndarray) -> None:
    """Raise UsageError for what a predictor cannot run."""
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        given = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise UsageError(
            f"image of type {given}: expected a numpy array of uint8 or uint16, a PIL image or a path; scale, round "
            "and convert it"
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
