"""One file that holds a training's images, losslessly: a zip of image files, for a machine that has only Pillow.

Every image goes in as its own file where plain Pillow reads the training's pixels from that, else as lossless WebP.
"""

import io
import logging
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from imgtx.errors import UsageError
from imgtx.files import replacing
from imgtx.training.data.left_out import LeftOut, file_bytes, usable
from imgtx.training.data.pairs import Pair, check_size, make_pair

log = logging.getLogger("imgtx.train")

TRAIN, VALID = "train/", "valid/"
# What a zip adds to an image and twice its name, and once at its end.
ENTRY_BYTES, END_BYTES = 76, 22


def pack(train: Path, valid: Path, out: Path, *, valid_images: int, max_bytes: int | None = None) -> int:
    """Write `out` from two folders, with the first `valid_images` by name of the second; return its size in bytes.

    max_bytes: the largest size of `out`; training images that it has no room for are left out, any in any order.
    Images that cannot be decoded are left out. Raises UsageError for a folder without any other, and if `out` cannot be
    written.
    """
    # Not above: a bare machine lacks its decoders.
    from imgtx.training.data.images import find_photos, photo_pixels

    try:
        with (
            replacing(out, durable=False) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file,
        ):
            room = math.inf if max_bytes is None else max_bytes - END_BYTES

            def add(name: str, path: Path) -> bool:
                nonlocal room
                data = file_bytes(path)
                pixels = photo_pixels(data, str(path), scale=1, smallest=1)
                data = data if _same(data, pixels) else _webp(pixels)
                needed = len(data) + 2 * len(name.encode()) + ENTRY_BYTES
                if needed > room:
                    return False
                room -= needed
                # Without the time, so that the same folders give the same bytes.
                file.writestr(zipfile.ZipInfo(name), data)
                return True

            for part, folder, most in ((VALID, valid, valid_images), (TRAIN, train, None)):
                found = find_photos(folder)
                if max_bytes is not None and part == TRAIN:
                    # Not those of the first names, which may show one subject.
                    found.sort(key=lambda image: zlib.crc32(image[0].encode()))
                packed = usable(
                    ((part + key, path) for key, path in found), add, folder, most=most, left_out=LeftOut()
                )
                if not any(packed.values()):
                    raise UsageError(f"{out} has no room for an image of {folder}: allow a larger file")
                if missing := len(packed) - sum(packed.values()):
                    log.warning("left out %d of %d images of %s: no room", missing, len(packed), folder)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}): give another file") from error
    return out.stat().st_size


def unpack(
    path: Path,
    part: str,
    scale: int,
    *,
    smallest: int,
    most: int | None = None,
    left_out: LeftOut | None = None,
) -> list[Pair]:
    """Return the pairs of TRAIN or VALID in a packed file, in the order of their keys, at most `most`.

    Images that are too small are left out. Raises UsageError for a file that is not a whole packed file, and where all
    are too small.
    """

    def read(key: str, name: str) -> Pair:
        pixels = _read(file.read(name))
        check_size(pixels, f"{path}:{name}", scale, smallest)
        return make_pair(key, pixels, scale)

    try:
        with zipfile.ZipFile(path) as file:
            names = sorted(name for name in file.namelist() if name.startswith(part))
            named = ((name.removeprefix(part), name) for name in names)
            pairs = usable(named, read, f"{path}:{part}", most=most, left_out=left_out)
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile, Image.DecompressionBombError) as error:
        raise UsageError(
            f"{path} is not a whole packed file ({error}): make one with `python -m imgtx.training pack`"
        ) from error
    if not pairs:
        raise UsageError(
            f"{path} contains no images under {part}: make it with `python -m imgtx.training pack`"
        )
    return list(pairs.values())


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
