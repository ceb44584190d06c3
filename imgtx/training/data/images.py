"""Decode images to train on, by the decoders that runs use."""

from pathlib import Path

import numpy as np

from imgtx.codecs import SUFFIXES, decode
from imgtx.errors import ImageError, UsageError
from imgtx.training.data.left_out import LeftOut, file_bytes, usable
from imgtx.training.data.pairs import Pair, check_size, make_pair

MAX_PIXELS = 10**9


def load_pairs(
    folder: Path, scale: int, *, smallest: int, most: int | None = None, left_out: LeftOut | None = None
) -> list[Pair]:
    """Return the images under `folder` as pairs, in the order of their names, at most `most`.

    Left out are images that cannot be decoded or whose reduction has a side below `smallest` pixels. Raises UsageError
    if no other is there.
    """

    def read(key: str, path: Path) -> Pair:
        return make_pair(key, photo_pixels(file_bytes(path), str(path), scale, smallest), scale)

    return list(usable(find_photos(folder), read, folder, most=most, left_out=left_out).values())


def find_photos(folder: Path) -> list[tuple[str, Path]]:
    """Return keys and files of the images under `folder`, sorted by name; UsageError if there is none."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise UsageError(
            f"no images under {folder}: give a folder that contains {', '.join(sorted(SUFFIXES))} files"
        )
    return [(path.relative_to(folder).as_posix(), path) for path in paths]


def photo_pixels(data: bytes, name: str, scale: int, smallest: int) -> np.ndarray:
    """Decode the image in `data`, upright, to (H, W, 3) uint8; grey becomes three equal channels.

    Raises ImageError that names the image if it cannot be decoded or is too small.
    """
    try:
        pixels = decode(data, max_pixels=MAX_PIXELS).pixels
    except ImageError as error:
        raise ImageError(
            error.reason, f"{name} cannot be trained on ({error.reason}: {error}): remove it"
        ) from error
    check_size(pixels, name, scale, smallest)
    if pixels.dtype == np.uint16:
        pixels = (pixels // 257).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
