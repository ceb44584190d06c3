"""Datasets of clean images on this machine, and the reports written about them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imgtx.codecs import SUFFIXES, decode
from imgtx.errors import ImageError, UsageError
from imgtx.imageops.resize import modcrop

LIST = ".txt"
# A test image above this is a mistake, not a benchmark.
_MAX_PIXELS = 200_000_000


@dataclass(frozen=True)
class Dataset:
    """Clean images under one name: the files of one folder, in the order of their names."""

    name: str
    files: tuple[Path, ...]


def find_datasets(paths: Sequence[Path]) -> tuple[Dataset, ...]:
    """Find the datasets under `paths`: each path's own images, then those of its folders, one level down.

    A LIST file names images, one a line without suffix, in the folders beside it. Raises UsageError for no path at all,
    a path that is no folder, one without images, and a list that names what is not there.
    """
    if not paths:
        raise UsageError("evaluate was given no dataset: name one folder of images or more")
    found = []
    for path in map(Path, paths):
        if path.suffix == LIST and path.is_file():
            found.append(_listed(path))
            continue
        if not path.is_dir():
            raise UsageError(
                f"evaluate was given {path}, which is no folder: expected a folder of images, a folder of such "
                f"folders, or a {LIST} file of names of images in folders beside it"
            )
        folders = [path, *sorted(child for child in path.iterdir() if child.is_dir())]
        here = [Dataset(folder.resolve().name, files) for folder in folders if (files := _images(folder))]
        if not here:
            raise UsageError(
                f"evaluate found no image in {path} or the folders right under it: expected files that end in "
                f"{' '.join(sorted(SUFFIXES))}"
            )
        found += here
    return tuple(found)


def _listed(path: Path) -> Dataset:
    names = path.read_text(encoding="utf-8").split()
    there = {
        file.stem: file
        for child in sorted(path.parent.iterdir())
        if child.is_dir()
        for file in _images(child)
    }
    missing = [name for name in names if name not in there]
    if missing or not names:
        raise UsageError(
            f"{path} names {len(names)} images, and {', '.join(missing[:3]) or 'no one'} is in no folder beside it: "
            f"a list holds names without suffix, one a line"
        )
    return Dataset(path.stem, tuple(there[name] for name in names))


def _images(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in SUFFIXES))


def read_clean(path: Path, scale: int) -> np.ndarray:
    """Read (H, W, 1 or 3) uint8, cut to multiples of `scale`; UsageError for what cannot be read."""
    try:
        return modcrop(decode(path.read_bytes(), max_pixels=_MAX_PIXELS).pixels, scale)
    except ImageError as error:
        raise UsageError(f"{path} cannot be read ({error}): repair it or take it out") from error


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return (H, W, 1 or 3) as (H, W, 3); grey becomes three equal channels."""
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def check_writable(path: Path) -> None:
    """UsageError where a report cannot be written: before minutes of work, not after."""
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"the report cannot be written to {path}: choose a file in a folder that exists and that you may write to"
        )
