"""One file that holds a training's images, losslessly: a zip of image files, for a machine that has only Pillow.

Every image goes in as its own file where plain Pillow reads the training's pixels from that, else as lossless WebP.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from imgtx.errors import UsageError
from imgtx.files import replacing
from imgtx.training.pairs import Pair, check_size, make_pair

TRAIN, VALID = "train/", "valid/"


def pack(train: Path, valid: Path, out: Path, *, valid_images: int) -> int:
    """Write `out` from two folders, with the first `valid_images` by name of the second; return its size in bytes.

    Raises UsageError as `imgtx.training.images.photo_pixels` does, and if `out` cannot be written.
    """
    # Not above: a bare machine lacks its decoders.
    from imgtx.training.images import find_photos, photo_pixels

    named = [(TRAIN + key, path) for key, path in find_photos(train)]
    named += [(VALID + key, path) for key, path in find_photos(valid)[:valid_images]]
    try:
        with (
            replacing(out, durable=False) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file,
        ):
            for name, path in named:
                data = path.read_bytes()
                pixels = photo_pixels(data, str(path), scale=1, smallest=1)
                # Without the time, so that the same folders give the same bytes.
                info = zipfile.ZipInfo(name)
                file.writestr(info, data if _same(data, pixels) else _webp(pixels))
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}): give another file") from error
    return out.stat().st_size


def unpack(path: Path, part: str, scale: int, *, smallest: int, most: int | None = None) -> list[Pair]:
    """Return the pairs of TRAIN or VALID in a packed file, in the order of their keys, at most `most`.

    Raises UsageError for a file that is not a whole packed file, and for images that are too small.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = sorted(name for name in file.namelist() if name.startswith(part))[:most]
            images = [(name.removeprefix(part), _read(file.read(name))) for name in names]
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile, Image.DecompressionBombError) as error:
        raise UsageError(
            f"{path} is not a whole packed file ({error}): make one with `python -m imgtx.training pack`"
        ) from error
    if not images:
        raise UsageError(
            f"{path} contains no images under {part}: make it with `python -m imgtx.training pack`"
        )
    for key, pixels in images:
        check_size(pixels, f"{path}:{part}{key}", scale, smallest)
    return [make_pair(key, pixels, scale) for key, pixels in images]


def _read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _same(data: bytes, pixels: np.ndarray) -> bool:
    try:
        return np.array_equal(_read(data), pixels)
    except (OSError, ValueError):
        return False


def _webp(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        file, "WEBP", lossless=True, quality=100, method=4, exact=True
    )
    return file.getvalue()
