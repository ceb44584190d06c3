"""Read a style picture, from a file or an array, as style transfer looks at it (without torch).

A style picture is a whole painting, or a part of one: strokes and colours count, what is shown does not. Any form that
imgtx reads will do. Transparent parts are seen on white, 16 bits become 8, and a huge picture is reduced here once, so
that no worker holds it as floats.
"""

from pathlib import Path
from typing import Any

import numpy as np

from imgtx.codecs import decode, read_header
from imgtx.errors import ImageError, UsageError
from imgtx.models.style_config import SMALLEST_STYLE

# In megapixels; a larger picture is refused by its header.
LARGEST_STYLE = 200
# The shorter side that a huge picture is reduced to, at least: the style encoder looks at 512 pixels at most.
ENOUGH = 1024
# Standard deviation in levels of 255: a picture whose channels all stay below it is one colour, compressed.
FLAT = 2.0
ANOTHER = "give a picture with strokes or a texture"


def read_style(data: bytes) -> np.ndarray:
    """Decode a style picture's file to (H, W, 3) uint8. Raises UsageError where it cannot be one."""
    try:
        header = read_header(data)
        if header.height * header.width > LARGEST_STYLE * 10**6:
            raise UsageError(
                f"is {header.width} x {header.height}: a style picture has {LARGEST_STYLE} megapixels at most; "
                "reduce it"
            )
        picture = decode(data, max_pixels=LARGEST_STYLE * 10**6)
    except ImageError as error:
        raise UsageError(f"cannot be used ({error.reason}: {error})") from error
    return as_style(picture.pixels, picture.alpha)


def as_style(pixels: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
    """Return (H, W, 3) uint8 of pixels (H, W, 1 or 3), alpha (H, W), both uint8 or uint16.

    Raises UsageError for a picture below 64 pixels a side, and for one of a single colour.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST_STYLE:
        raise UsageError(
            f"is {width} x {height}: a style picture has {SMALLEST_STYLE} pixels a side or more; {ANOTHER}"
        )
    step = min(height, width) // ENOUGH
    full = np.iinfo(pixels.dtype).max
    pixels = _reduced(pixels, step)
    if alpha is not None:
        cover = _reduced(alpha[..., None], step) / full
        pixels = pixels * cover + full * (1 - cover)
    levels = np.floor(pixels * (255 / full) + 0.5).astype(np.uint8)
    if levels.reshape(-1, levels.shape[2]).std(axis=0).max() < FLAT:
        raise UsageError(f"is of one colour, and so has no style: {ANOTHER}")
    return levels if levels.shape[2] == 3 else np.repeat(levels, 3, axis=2)


def open_style(style: Any) -> np.ndarray:
    """Return (H, W, 3) uint8 of a path, an array (H, W) or (H, W, 1 to 4) of uint8 or uint16, or a PIL image.

    Raises UsageError for anything else, and for what cannot be a style picture.
    """
    try:
        if isinstance(style, str | Path):
            return read_style(_bytes_of(Path(style)))
        return as_style(*_split(style))
    except UsageError as error:
        name = f"the style picture {style}" if isinstance(style, str | Path) else "the style picture"
        raise UsageError(f"{name} {error}") from error


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror}): give the path of a picture") from error


def _split(style: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return pixels (H, W, 1 or 3) and alpha (H, W) or None of an array or a PIL image."""
    # PIL's own types would cost its import here.
    if hasattr(style, "convert") and getattr(style, "mode", "RGB") not in ("L", "LA", "RGB", "RGBA", "I;16"):
        style = style.convert("RGBA")
    pixels = np.asarray(style)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise UsageError(
            f"is an array {pixels.dtype} of shape {pixels.shape}: expected uint8 or uint16 of (H, W) or "
            f"(H, W, 1 to 4), a PIL image, or the path of a picture"
        )
    return (pixels[..., :-1], pixels[..., -1]) if pixels.shape[2] in (2, 4) else (pixels, None)


def _reduced(pixels: np.ndarray, step: int) -> np.ndarray:
    """Return the means of squares of `step` pixels, as floats; what is left over at the bottom and right is cut off.

    A step of 0 or 1 leaves (H, W, C) as it is.
    """
    if step < 2:
        return pixels
    height, width = (side // step for side in pixels.shape[:2])
    rows = []
    for top in range(0, height * step, step):
        squares = pixels[top : top + step, : width * step].reshape(step, width, step, -1)
        rows.append(squares.mean(axis=(0, 2), dtype=np.float32))
    return np.stack(rows)
